"""What the addresses answer, against the same index asked directly."""

from __future__ import annotations

import dataclasses
import io
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import pytest
import typer.main

from indexer.cli.app import app as command_line
from indexer.cli.app import register_verbs
from indexer.query.diversity import Diversity
from indexer.query.filters import Filters
from indexer.query.results import Moment
from indexer.serve.questions import ClassifyParameters, MomentFilters, SearchParameters
from indexer.serve.service import Service
from indexer.serve.settings import ServeSettings


def ids(answer):
    return [moment["segment_id"] for moment in answer.json()["results"]]


def test_search_answers_what_the_index_answers(ask, served):
    expected = served.search("green", k=3).to_dict()
    assert ask.get("/search", params={"query": "green", "k": 3}).json() == expected
    assert ask.post("/search", json={"query": "green", "k": 3}).json() == expected


def test_search_understands_the_syntax_of_queries(ask):
    found = ask.get("/search", params={"query": '"sea is calm"'}).json()
    assert [Path(moment["video"]).name for moment in found["results"]] == ["blue.mp4"]
    assert "**sea is calm**" in found["results"][0]["snippet"]
    assert all("red.mp4" not in one["video"] for one in ask.get("/search?query=blue+-red").json()["results"])


def test_search_by_a_moment_answers_what_the_index_answers(ask, served):
    segment_id = served.search("red", k=1).results[0].segment_id
    assert ask.get("/search", params={"like": segment_id, "k": 2}).json() == served.search_like(segment_id, 2).to_dict()


@pytest.mark.parametrize(
    ("parameters", "where"),
    [
        ({"video": "r*.mp4"}, Filters(video="r*.mp4")),
        ({"in": "blue.mp4"}, Filters(in_video="blue.mp4")),
        ({"min_duration": 10}, Filters(min_duration_s=10)),
        ({"max_duration": 10}, Filters(max_duration_s=10)),
        ({"min_height": 65}, Filters(min_height=65)),
        ({"modified_after": "2100-01-01"}, Filters(modified_after="2100-01-01")),
        ({"modified_before": "2100-01-01"}, Filters(modified_before="2100-01-01")),
        ({"indexed_after": "2100-01-01"}, Filters(indexed_after="2100-01-01")),
        ({"indexed_before": "2100-01-01"}, Filters(indexed_before="2100-01-01")),
        ({"label": ["red>=0.5"]}, Filters(labels=("red>=0.5",))),
        ({"speech": "true"}, Filters(has_speech=True)),
        ({"where": ["height=64", "duration_s<10"]}, Filters(where=("height=64", "duration_s<10"))),
        ({"min_duration": "", "label": ""}, Filters()),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_filters_are_those_of_the_index(ask, served, parameters, where):
    expected = served.search("green", 10, where=where)
    assert ask.get("/search", params={"query": "green", **parameters}).json() == expected.to_dict()
    labels = {"labels": "red,blue", **parameters}
    scored = [moment.to_dict() for moment in served.classify(["red", "blue"], where=where)]
    answered = ask.get("/classify", params=labels).json()["results"]
    assert [_without_scores(one) for one in answered] == [_without_scores(one) for one in scored]
    assert [_scores(one) for one in answered] == [pytest.approx(_scores(one), abs=2e-6) for one in scored]


def _without_scores(moment: dict) -> dict:
    names = [label["label"] for label in moment["labels"]]
    return {**moment, "labels": names, "none_of_these": None}


def _scores(moment: dict) -> list[float]:
    """Rounded to six digits in both: the last may differ, as threads add up in another order."""
    return [*(label["score"] for label in moment["labels"]), moment["none_of_these"]]


def test_language_that_no_video_has_is_one_line(ask):
    refused = ask.get("/search", params={"query": "green", "language": "de"})
    assert refused.status_code == 400
    assert refused.json()["error"].startswith("no video of the index is in the language 'de': it states none")


def test_answers_are_as_varied_as_asked(ask, served):
    for parameters, diversity in [
        ({"per_video": 1}, Diversity(per_video=1)),
        ({"show_alike": "true"}, Diversity(collapse=False)),
    ]:
        expected = served.search("green", 5, diversity=diversity).to_dict()
        assert ask.get("/search", params={"query": "green", "k": 5, **parameters}).json() == expected


def test_conditions_may_name_columns_of_the_services_metadata_and_no_file(ask):
    found = ask.get("/search", params={"query": "red", "where": "place=Earth"})
    assert [Path(moment["video"]).name for moment in found.json()["results"]] == ["blue.mp4"]
    refused = ask.get("/search", params={"query": "red", "where": "place=Earth", "metadata": "/etc/passwd"})
    assert (refused.status_code, refused.json()) == (400, {"error": "there is no parameter 'metadata': see /docs"})


def test_parameters_are_the_options_of_the_command_line():
    register_verbs()
    verbs = typer.main.get_command(command_line).commands  # type: ignore[attr-defined]
    options = {option.lstrip("-") for one in verbs["search"].params for option in one.opts if option.startswith("--")}
    options = {name.replace("-", "_") for name in options} - {"queries", "json", "help", "metadata"}
    offered = {field.alias or name for name, field in SearchParameters.model_fields.items()}
    assert offered - {"query", "k", "links"} == options
    assert _filters_that_requests_can_set() == {field.name for field in dataclasses.fields(Filters)} - {"metadata"}


def _filters_that_requests_can_set():
    values = {"min_duration": 1, "max_duration": 2, "min_height": 3, "speech": True, "label": ["a"], "where": ["a=b"]}
    values["language"] = ["en"]
    dates = {name: "2025-01-01" for name in MomentFilters.model_fields if name.endswith(("after", "before"))}
    filters = MomentFilters(video="a", **{"in": "b"}, **values, **dates).filters(ServeSettings())
    defaults = {field.name: field.default for field in dataclasses.fields(Filters)}
    return {name for name, default in defaults.items() if getattr(filters, name) != default} - {"metadata"}


def test_classify_gives_a_part_at_a_time(ask, served):
    everything = [moment.to_dict() for moment in served.classify(["red", "blue"])]
    assert len(everything) == 5
    answer = ask.post("/classify", json={"labels": "red, blue", "start": 1, "limit": 2}).json()
    assert answer == {"moments": 5, "start": 1, "results": everything[1:3]}
    assert ask.get("/classify?labels=red&start=99").json() == {"moments": 5, "start": 99, "results": []}


def test_links_lead_to_the_picture_and_a_clip_of_the_span(ask, served):
    moment = ask.get("/search", params={"query": "green", "k": 1, "links": True}).json()["results"][0]
    picture = ask.get(moment["thumbnail"])
    assert picture.headers["content-type"] == "image/jpeg"
    assert picture.content == served.thumbnail(moment["segment_id"])
    clip = ask.get(moment["clip"])
    assert (clip.status_code, clip.headers["content-type"]) == (200, "video/mp4")
    with av.open(io.BytesIO(clip.content)) as container:
        times = [float(frame.time) for frame in container.decode(video=0)]
    assert times[-1] == pytest.approx(moment["end_s"] - moment["start_s"] - 0.5, abs=0.1)


def test_clip_may_have_other_bounds(ask, served):
    moment = served.search("green", k=1, where=Filters(in_video="mixed.mp4")).results[0]
    clip = ask.get(f"/moments/{moment.segment_id}/clip.mp4", params={"start_s": 9, "end_s": 11})
    assert clip.status_code == 200, clip.text
    with av.open(io.BytesIO(clip.content)) as container:
        middles = [frame.to_ndarray(format="rgb24")[32, 32] for frame in container.decode(video=0)]
    assert middles[0][0] > 200  # yellow has red in it,
    assert middles[-1][0] < 60  # green has none


@pytest.mark.parametrize(
    ("address", "status", "error"),
    [
        ("/search", 400, "give either a query or like=SEGMENT_ID"),
        ("/search?query=a&like=3", 400, "give either a query or like=SEGMENT_ID"),
        ("/search?query=%20", 400, "the query is empty"),
        ("/search?query=a&k=0", 400, "k: input should be greater than or equal to 1, got '0'"),
        ("/search?query=a&k=1001", 400, "k: input should be less than or equal to 1000, got '1001'"),
        ("/search?query=a&k=ten", 400, "k: input should be a valid integer"),
        ("/search?query=a&kk=1", 400, "there is no parameter 'kk': see /docs"),
        ("/search?query=" + "a" * 2001, 400, "at most 2000 characters, got 2001"),
        ("/search?query=%22open", 400, '"open'),
        ("/search?query=a&like=", 200, None),
        ("/search?like=1", 404, "there is no moment with the id 1"),
        ("/search?like=9223372036854775808", 400, "like: input should be less than or equal to"),
        ("/search?query=a&in=no.mp4", 400, "the video 'no.mp4' is not in the index"),
        ("/search?query=a&min_duration=nan", 400, "min_duration_s must be at least 0, got nan"),
        ("/search?query=a&modified_after=soon", 400, "modified_after must be a date"),
        ("/search?query=a&where=height", 400, "'height'"),
        ("/search?query=a&where=nope%3D1", 400, "no column 'nope'"),
        ("/classify", 400, "labels is missing"),
        ("/classify?labels=,", 400, "no labels given"),
        ("/classify?labels=a&limit=10001", 400, "limit must be at most 10000, got 10001"),
        ("/moments/1/thumbnail.jpg", 404, "there is no moment with the id 1"),
        ("/moments/1/clip.mp4", 404, "there is no moment with the id 1"),
        ("/moments/x/clip.mp4", 400, "segment_id: input should be a valid integer"),
        ("/moments/-1/clip.mp4", 400, "segment_id: input should be greater than or equal to 0"),
        ("/moments/..%2f..%2f..%2fetc%2fpasswd/clip.mp4", 404, "there is nothing at this address"),
        ("/moments/../../../etc/passwd", 404, "there is nothing at this address"),
        ("/etc/passwd", 404, "there is nothing at this address"),
    ],
)
def test_bad_input_is_one_line(ask, address, status, error):
    answer = ask.get(address)
    assert answer.status_code == status
    if error is not None:
        assert list(answer.json()) == ["error"]
        assert error in answer.json()["error"]
        assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ('{"query":', "the body is no JSON"),
        ("[1]", "the request: input should be a valid dictionary"),
        ('{"query": 3}', "query: input should be a valid string, got '3'"),
        ('{"query": "\\ud800"}', "lone surrogate at character 0"),
        ('{"query": "a", "label": ["\\udfff"]}', "lone surrogate"),
        ('{"query": "a", "path": "/etc/passwd"}', "there is no parameter 'path'"),
    ],
)
def test_bad_body_is_one_line(ask, body, error):
    answer = ask.post("/search", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert error in answer.json()["error"]


def test_clip_bounds_must_make_sense(ask, served):
    address = f"/moments/{served.search('red', k=1).results[0].segment_id}/clip.mp4"
    for bounds, error in [
        ({"start_s": 3, "end_s": 1}, "an end after it, got 3.0 to 1.0"),
        ({"start_s": "nan"}, "start_s: input should be a finite number"),
        ({"end_s": 61.5}, "at most 60 s long"),
        ({"start_s": -1}, "start_s: input should be greater than or equal to 0"),
    ]:
        answer = ask.get(address, params=bounds)
        assert (answer.status_code, error in answer.json()["error"]) == (400, True), answer.text


def test_wrong_method_is_refused(ask):
    answer = ask.put("/search")
    assert (answer.status_code, answer.json()) == (405, {"error": "PUT is not for this address: see /docs"})
    assert "GET" in answer.headers["allow"]


def test_large_body_is_refused_with_and_without_its_length(ask):
    body = b'{"query": "' + b"a" * 70_000 + b'"}'
    for content in (body, iter([body[:40_000], body[40_000:]])):
        answer = ask.post("/search", content=content)
        assert answer.status_code == 413
        assert answer.json() == {"error": "a request must be at most 65536 bytes"}


def test_health_names_the_version_that_is_asked(ask, served):
    assert ask.get("/health/live").json() == {"alive": True}
    assert ask.get("/health/ready").json() == {
        "ready": True,
        "version": served.snapshot.ledger.version,
        "videos": 3,
        "moments": 5,
        "refresh_error": None,
        "replicas": 1,
    }


def _metrics(ask):
    lines = [line for line in ask.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_metrics_count_requests_by_route_and_status(ask, served):
    before = _metrics(ask)
    for address in ("/search?query=a", "/search?query=b", "/search?k=0", "/moments/1/clip.mp4", "/no/such/page"):
        ask.get(address)
    after = _metrics(ask)
    grown = {name: after[name] - before.get(name, 0) for name in after if name.startswith("videobert_requests_total")}
    assert {name: value for name, value in grown.items() if value and "/metrics" not in name} == {
        'videobert_requests_total{method="GET",route="/search",status="200"}': 2,
        'videobert_requests_total{method="GET",route="/search",status="400"}': 1,
        'videobert_requests_total{method="GET",route="/moments/{segment_id}/clip.mp4",status="404"}': 1,
        'videobert_requests_total{method="GET",route="other",status="404"}': 1,
    }
    name = 'videobert_request_seconds_count{route="/search"}'
    assert after[name] - before.get(name, 0) == 3
    assert after["videobert_index_version"] == served.snapshot.ledger.version
    assert after["videobert_index_moments"] == 5


def test_searches_that_come_together_get_their_own_answers(ask, served):
    asked = ["red", "blue", "green", "yellow"] * 10
    expected = {query: served.search(query, k=2).results[0].segment_id for query in set(asked)}
    with ThreadPoolExecutor(20) as clients:
        found = list(clients.map(lambda query: ids(ask.get("/search", params={"query": query, "k": 2}))[0], asked))
    assert found == [expected[query] for query in asked]


def test_fault_of_ours_is_an_answer_without_its_details(ask, monkeypatch, caplog):
    async def fail(*_):
        raise RuntimeError("secret /path")

    monkeypatch.setattr(Service, "search", fail)
    answer = ask.get("/search?query=a")
    assert (answer.status_code, "secret" in answer.text, list(answer.json())) == (500, False, ["error"])


def test_answers_have_the_keys_that_the_openapi_page_promises(ask):
    description = ask.get("/openapi.json").json()
    schemas = description["components"]["schemas"]
    found = ask.get("/search", params={"query": '"sea is calm"', "links": True}).json()
    assert set(found) == set(schemas["SearchAnswer"]["properties"])
    promised = set(schemas["MomentAnswer"]["properties"])
    assert set(found["results"][0]) == promised - {"num_alike", "alike"}
    assert promised - {"thumbnail", "clip"} == {field.name for field in dataclasses.fields(Moment)}
    assert set(description["paths"]["/search"]["get"]["responses"]) == {"200", "400", "503"}
    scored = ask.get("/classify?labels=red").json()
    assert set(scored) == set(schemas["ClassifyAnswer"]["properties"])
    assert set(scored["results"][0]) == set(schemas["ClassifiedAnswer"]["properties"])
    assert set(ask.get("/health/ready").json()) == set(schemas["HealthAnswer"]["properties"])


def test_docs_page_needs_nothing_but_itself(ask):
    page = ask.get("/docs")
    assert page.status_code == 200
    assert not re.search(r"<script|<link|<img|https?://|@import|url\(", page.text)
    for route in ("/search", "/classify", "/moments/{segment_id}/clip.mp4", "/metrics", "/health/ready"):
        assert route in page.text
    for name in [*SearchParameters.model_fields, *ClassifyParameters.model_fields]:
        assert f'name="{name.rstrip("_")}"' in page.text
    assert ask.get("/", follow_redirects=False).headers["location"] == "/docs"
