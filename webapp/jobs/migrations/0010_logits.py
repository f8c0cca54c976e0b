from django.db import migrations, models

KINDS = [
    ("global", "global model"),
    ("update", "update"),
    ("step", "step between models"),
    ("strategy_state", "strategy state"),
    ("merged", "merged model"),
    ("shard", "shard of a fold"),
    ("logits", "what a model says"),
]


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0009_alone_of"),
    ]

    operations = [
        migrations.AlterField(
            model_name="artefact",
            name="kind",
            field=models.CharField(choices=KINDS, max_length=16),
        ),
    ]
