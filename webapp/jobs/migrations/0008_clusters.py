from django.db import migrations, models

TASKS = ["train", "fold", "evaluate"]
PHASES = [
    "planned",
    "broadcasting",
    "collecting",
    "folding",
    "aggregating",
    "evaluating",
    "closed",
    "failed",
]


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0007_participant_tailoring"),
    ]

    operations = [
        migrations.AddField(
            model_name="participant",
            name="parent",
            field=models.PositiveIntegerField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="round",
            name="clusters",
            field=models.JSONField(blank=True, default=list),
        ),
        migrations.AlterField(
            model_name="assignment",
            name="task",
            field=models.CharField(choices=[(name, name) for name in TASKS], max_length=10),
        ),
        migrations.AlterField(
            model_name="round",
            name="phase",
            field=models.CharField(
                choices=[(name, name) for name in PHASES], default="planned", max_length=14
            ),
        ),
    ]
