from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("jobs", "0002_watch")]

    operations = [
        migrations.AddField(
            model_name="assignment",
            name="buffered_in",
            field=models.PositiveIntegerField(blank=True, null=True),
        ),
    ]
