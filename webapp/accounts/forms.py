"""Forms for login, passwords, tokens and users."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth import password_validation
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm

from webapp.accounts.models import Role, User


class SignInForm(AuthenticationForm):
    error_messages = {
        "invalid_login": "Wrong username or password. Both are case-sensitive.",
        "inactive": "This account is deactivated. Ask an admin of this site.",
    }


class PasswordForm(PasswordChangeForm):
    error_messages = {
        "password_mismatch": "The new passwords don't match.",
        "password_incorrect": "Your current password is wrong.",
    }


class TokenForm(forms.Form):
    label = forms.CharField(
        label="Name",
        max_length=100,
        help_text="What the token is for, for example “nightly script”.",
        error_messages={"required": "Enter a name for the token."},
    )


class NewUserForm(forms.ModelForm):  # type: ignore[type-arg]
    password = forms.CharField(
        label="Password",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="At least 8 characters, not a common word. Users can change it in their profile.",
    )

    class Meta:
        model = User
        fields = ["username", "email", "role"]
        help_texts = {"username": "Letters, digits and @ . + - _"}

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        password = self.cleaned_data.get("password")
        if password:
            try:
                password_validation.validate_password(password, self.instance)
            except forms.ValidationError as error:
                self.add_error("password", error)
        return cleaned

    def save(self, commit: bool = True) -> User:
        self.instance.set_password(self.cleaned_data["password"])
        user: User = super().save(commit)
        return user


class RoleForm(forms.Form):
    role = forms.ChoiceField(choices=Role.choices)
    is_active = forms.BooleanField(required=False)
