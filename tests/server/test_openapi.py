"""contrib/openapi.yaml names the routes and fields that the server has, and a short run of what schemathesis makes of it passes."""
import os
import re

import pytest
import yaml
from fuzz_api import fuzz
from serving import ROOT

SPEC = yaml.safe_load((ROOT / "contrib" / "openapi.yaml").read_text())
REQUESTS = {"c": "ChatRequest", "t": "CompletionRequest", "m": "MessagesRequest", "r": "ResponsesRequest"}


def fields(schema):
    """Names of the properties of a schema and of those that it is made of."""
    if "$ref" in schema:
        schema = SPEC["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
    return set(schema.get("properties", {})).union(*map(fields, schema.get("allOf", [])))


def test_every_route_is_described():
    routes = re.findall(r'^ROUTE_(\w+)\("([^"]+)"', (ROOT / "runtime/server/routes.def").read_text(), re.M)
    described = {(method, re.sub(r"^/v1(?=/)", "", path)) for path, methods in SPEC["paths"].items() for method in methods}
    assert described == {(method.lower(), path.replace("*", "{id}")) for method, path in routes}


@pytest.mark.parametrize("api", REQUESTS)
def test_every_field_is_described(api):
    known = {name for name, apis in re.findall(r'^FIELD\("(\w+)", "(\w+)"\)', (ROOT / "runtime/server/fields.def").read_text(), re.M) if api in apis}
    assert fields({"$ref": REQUESTS[api]}) == known


@pytest.mark.skipif("ADALLM_BUILD" in os.environ, reason="takes minutes in builds with sanitizers; fuzz_api.py runs them alone")
def test_requests_made_from_the_description(ada, tmp_path):
    statuses, good = fuzz(ada, tmp_path, 1000, seed=int(os.environ.get("ADALLM_FUZZ_SEED", 1)))
    answered = {path for (path, status), n in statuses.items() if status == 200}
    assert {"/chat/completions", "/completions", "/messages", "/responses", "/tokenize", "/messages/count_tokens", "/detokenize"} <= answered
    assert statuses.total() >= 1000 and good
