import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0008_clusters"),
    ]

    operations = [
        migrations.AddField(
            model_name="job",
            name="alone_of",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="alone_jobs",
                to="jobs.job",
            ),
        ),
    ]
