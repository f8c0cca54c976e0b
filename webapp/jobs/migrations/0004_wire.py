import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("jobs", "0003_assignment_buffered_in")]

    operations = [
        migrations.AddField(
            model_name="assignment",
            name="wire",
            field=models.CharField(blank=True, default="", max_length=80),
        ),
        migrations.AddField(
            model_name="round",
            name="step_artefact",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="jobs.artefact",
            ),
        ),
        migrations.AlterField(
            model_name="artefact",
            name="kind",
            field=models.CharField(
                choices=[
                    ("global", "global model"),
                    ("update", "update"),
                    ("step", "step between models"),
                    ("strategy_state", "strategy state"),
                    ("merged", "merged model"),
                ],
                max_length=16,
            ),
        ),
    ]
