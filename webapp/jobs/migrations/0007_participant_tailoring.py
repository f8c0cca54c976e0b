from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0006_fold_shards"),
    ]

    operations = [
        migrations.AddField(
            model_name="participant",
            name="tailoring",
            field=models.JSONField(blank=True, default=dict),
        ),
    ]
