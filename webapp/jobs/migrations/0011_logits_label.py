from django.db import migrations, models

KINDS = [
    ("global", "global model"),
    ("update", "update"),
    ("step", "step between models"),
    ("strategy_state", "strategy state"),
    ("merged", "merged model"),
    ("shard", "shard of a fold"),
    ("logits", "logits"),
]


class Migration(migrations.Migration):
    """Only a label changes; no column does."""

    dependencies = [
        ("jobs", "0010_logits"),
    ]

    operations = [
        migrations.AlterField(
            model_name="artefact",
            name="kind",
            field=models.CharField(choices=KINDS, max_length=16),
        ),
    ]
