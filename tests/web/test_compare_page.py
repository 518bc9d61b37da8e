"""The page that holds two flights against each other."""

from __future__ import annotations

import re

import pytest
from conftest import Client
from weblab import Demo


def test_a_page_shows_what_became_worse(client: Client) -> None:
    page = client.get("/compare/1/3").text
    worse = re.search(r"test-<wbr>amd64-<wbr>xsm.*?worse.*?xsm-denied.*?no avc line", page, re.DOTALL)
    assert worse is not None
    assert "only in 3" in page
    assert "only in 3" in client.get("/compare/3/1").text
    assert "\x1b" not in page
    assert " style=" not in page


def test_a_flight_is_as_itself(client: Client) -> None:
    assert "Every job and every step had the same outcome" in client.get("/compare/latest/3").text


def test_a_flight_leads_to_the_one_before_it_on_its_branch(client: Client) -> None:
    assert 'href="/compare/1/3"' in client.get("/flights/3").text
    assert "/compare/" not in client.get("/flights/2").text


def test_the_form_leads_to_the_address(client: Client) -> None:
    answer = client.get("/compare?a=1&b=latest")
    assert (answer.status_code, answer.headers["location"]) == (303, "/compare/1/latest")
    for wrong in ("?a=1", "?a=1&b=//evil", "?a=1&b=2%0d%0ax:y", "?a=&b="):
        assert client.get(f"/compare{wrong}").status_code == 400


@pytest.mark.parametrize("path", ["/compare/1/99", "/compare/x/1", "/compare/1/999999999999"])
def test_a_flight_that_is_not_there_is_not_found(client: Client, path: str) -> None:
    assert client.get(path).status_code == 404
    assert client.get(f"/api/v1{path}").status_code == 404


def test_the_api_tells_the_same(client: Client) -> None:
    told = client.get("/api/v1/compare/1/3").json()
    (worse,) = [job for job in told["jobs"] if job["change"] == "worse"]
    assert (worse["job"], worse["a"], worse["b"]) == ("test-amd64-xsm", "pass", "fail")
    assert {step["testid"] for step in worse["steps"]} == {"xsm-denied"}
    assert told["a"]["flight"] == 1


def test_an_empty_lab_has_nothing_to_compare(empty: Demo) -> None:
    assert Client(empty).get("/compare/latest/latest").status_code == 404
