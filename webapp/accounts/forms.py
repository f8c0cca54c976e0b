"""Forms of people: logging in, passwords, tokens, users."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth import password_validation
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm

from webapp.accounts.models import Role, User


class SignInForm(AuthenticationForm):
    error_messages = {
        "invalid_login": "User name or password is wrong. Both are case-sensitive.",
        "inactive": "This account is switched off; ask an admin of this site.",
    }


class PasswordForm(PasswordChangeForm):
    error_messages = {
        "password_mismatch": "The two new passwords differ; type the same one twice.",
        "password_incorrect": "That is not your current password.",
    }


class TokenForm(forms.Form):
    label = forms.CharField(
        label="What is it for",
        max_length=100,
        help_text="A name you will recognise when you revoke it, such as “nightly script”.",
        error_messages={"required": "Say what the token is for."},
    )


class NewUserForm(forms.ModelForm):  # type: ignore[type-arg]
    password = forms.CharField(
        label="Password",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="At least 8 characters, not a common word. They can change it on their profile.",
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
