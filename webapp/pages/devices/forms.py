"""The enrolment form and the command it creates."""

from __future__ import annotations

import shlex
from datetime import timedelta

from django import forms
from django.core.validators import RegexValidator

from webapp.devices.models import Device, DeviceRole

VALID_FOR = {
    "1h": ("1 hour", timedelta(hours=1)),
    "1d": ("1 day", timedelta(days=1)),
    "7d": ("7 days", timedelta(days=7)),
}
NAME = RegexValidator(
    r"\A[\w][\w .:-]*\Z",
    "Use letters, digits, spaces and . : - _ and begin with a letter or digit.",
)


class EnrolForm(forms.Form):
    name = forms.CharField(
        label="Name",
        max_length=100,
        validators=[NAME],
        help_text="Shown in charts and logs, for example pi-kitchen.",
        error_messages={"required": "Enter a name for the machine."},
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    role = forms.ChoiceField(
        label="Role",
        choices=DeviceRole.choices,
        initial=DeviceRole.TRAINER,
        help_text="Trainers fine-tune on their own data; aggregators merge updates and need none.",
    )
    valid_for = forms.ChoiceField(
        label="Command expires after",
        choices=[(key, label) for key, (label, _) in VALID_FOR.items()],
        initial="1d",
        help_text="It can be used only once.",
    )
    dataset = forms.CharField(
        label="Dataset (optional)",
        max_length=300,
        required=False,
        help_text="NAME=PATH or NAME=Hub dataset, such as law=billsum. The text stays there.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"].strip()
        if Device.objects.filter(name=name, revoked_at=None).exists():
            raise forms.ValidationError(f"{name} is already enrolled. Choose another name.")
        return name

    def clean_dataset(self) -> str:
        dataset: str = self.cleaned_data["dataset"].strip()
        name, _, path = dataset.partition("=")
        if dataset and not (name and path):
            raise forms.ValidationError("Enter it as NAME=PATH.")
        return dataset

    @property
    def lifetime(self) -> timedelta:
        return VALID_FOR[self.cleaned_data["valid_for"]][1]


def enrol_command(server: str, token: str, name: str, dataset: str, trains: bool = True) -> str:
    """The command to run on the device, quoted for a shell."""
    parts = ["python", "-m", "workers.agent", "enroll", "--server", server, "--token", token]
    parts += ["--name", name]
    if dataset or trains:
        parts += ["--dataset", dataset or "NAME=PATH"]
    return shlex.join(parts)
