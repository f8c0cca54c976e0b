"""A REST client for scripts: log in once to make a token, then use the API."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from workers.stack.processes import StartError

OVER = ("completed", "failed", "cancelled")


def make_token(url: str, username: str, password: str, label: str) -> str:
    """Log in as a browser does, and create an API token."""
    with httpx.Client(base_url=url, timeout=30, follow_redirects=True) as browser:
        page = browser.get("/login/")
        match = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        if match is None:
            raise StartError(f"the login page at {url} has no form; is this an Edgewise site?")
        form = {"username": username, "password": password, "csrfmiddlewaretoken": match.group(1)}
        browser.post("/login/", data=form, headers={"Referer": url}).raise_for_status()
        answer = browser.post(
            "/api/v1/tokens/",
            json={"label": label},
            headers={"X-CSRFToken": browser.cookies["csrftoken"], "Referer": url},
        )
        answer.raise_for_status()
        return str(answer.json()["token"])


class Site:
    """The REST API with a user's token. Raises httpx.HTTPStatusError with the problem's text."""

    def __init__(self, url: str, token: str) -> None:
        headers = {"Authorization": f"Token {token}"}
        self._client = httpx.Client(base_url=f"{url}/api/v1", headers=headers, timeout=30)

    def get(self, path: str, **query: Any) -> Any:
        return self._answer(self._client.get(path, params=query))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self._answer(self._client.post(path, json=dict(body or {})))

    @staticmethod
    def _answer(response: httpx.Response) -> Any:
        if response.is_error:
            text = f"{response.status_code} from {response.url}: {response.text[:1000]}"
            raise httpx.HTTPStatusError(text, request=response.request, response=response)
        return response.json() if response.content else None

    def is_valid(self) -> bool:
        """Whether the token is still valid."""
        return self._client.get("/me/").status_code == 200

    def all_rows(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """All rows of a list, page by page."""
        page = 1
        while True:
            answer = self.get(path, page=page, page_size=200, **query)
            yield from answer["results"]
            if not answer["next"]:
                return
            page += 1

    def online_devices(self) -> int:
        """How many devices are online and at rest."""
        return sum(row["presence"] == "online" for row in self.all_rows("/devices/"))

    def enrolment_token(self, name: str) -> str:
        return str(self.post("/enrolments/", {"name": name})["token"])

    def launch(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self.post("/jobs/", spec)
        return answer

    def job(self, job_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.get(f"/jobs/{job_id}/")
        return answer

    def events_after(self, job_id: str, seq: int) -> list[dict[str, Any]]:
        """A job's events after ``seq``, oldest first."""
        rows = self.all_rows(f"/jobs/{job_id}/events/", after=seq, ordering="seq")
        return list(rows)

    def wait_for(self, job_id: str, limit_s: float) -> dict[str, Any]:
        """Wait until the job is over. Raises StartError if that takes longer than ``limit_s``."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            job = self.job(job_id)
            if job["phase"] in OVER:
                return job
            time.sleep(0.3)
        raise StartError(f"the job is not over after {limit_s:.0f} s: {self.job(job_id)}")

    def download(self, path: str, target: Path) -> Path:
        """Stream a file to ``target``."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._client.stream("GET", path) as response, target.open("wb") as out:
            response.raise_for_status()
            for chunk in response.iter_bytes(2**20):
                out.write(chunk)
        return target
