"""LangChain and LiteLLM, unchanged: what they send and what they make of the answers and errors."""
import os

import pytest

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the network for prices

import litellm  # noqa: E402
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage  # noqa: E402
from langchain_core.tools import tool  # noqa: E402
from langchain_openai import ChatOpenAI  # noqa: E402
from pydantic import BaseModel, Field  # noqa: E402


class Person(BaseModel):
    name: str = Field(max_length=8)
    age: int = Field(ge=0, le=120)


@tool
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@pytest.fixture(scope="module")
def model(server):
    return ChatOpenAI(model="qwen3", base_url=server.url + "/v1", api_key="x", max_tokens=400, max_retries=0, seed=3,
                      extra_body={"chat_template_kwargs": {"enable_thinking": False}})


def test_langchain_chats(model):
    messages = [SystemMessage("Be brief."), HumanMessage("Hi")]
    r = model.invoke(messages)
    assert r.content and r.usage_metadata["output_tokens"] >= 1
    assert "".join(c.content for c in model.stream(messages)) == r.content


def test_langchain_calls_tools(model):
    bound = model.bind_tools([add], tool_choice="add")
    r = bound.invoke("x")
    assert r.tool_calls[0]["name"] == "add" and set(r.tool_calls[0]["args"]) == {"a", "b"}
    again = bound.invoke([HumanMessage("x"), r, ToolMessage("3", tool_call_id=r.tool_calls[0]["id"])])
    assert again.tool_calls
    whole = None
    for chunk in bound.stream("x"):
        whole = chunk if whole is None else whole + chunk
    assert whole.tool_calls[0]["args"] == r.tool_calls[0]["args"]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_gets_structure(model, method):
    assert isinstance(model.with_structured_output(Person, method=method).invoke("x"), Person)


@pytest.fixture
def lite(server):
    return {"api_base": server.url + "/v1", "api_key": "x", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5, "num_retries": 0}


def test_litellm_speaks_each_api(server, lite):
    r = litellm.completion(model="openai/qwen3", **lite)
    assert r.usage.total_tokens == r.usage.prompt_tokens + r.usage.completion_tokens and r.choices[0].finish_reason
    assert len(list(litellm.completion(model="openai/qwen3", stream=True, **lite))) > 1
    assert litellm.completion(model="anthropic/qwen3", **{**lite, "api_base": server.url}).usage.total_tokens
    assert litellm.responses(model="openai/qwen3", api_base=server.url + "/v1", api_key="x", input="Hi", max_output_tokens=5).status
    assert litellm.text_completion(model="text-completion-openai/qwen3", api_base=server.url + "/v1", api_key="x", prompt="Hi", max_tokens=5).choices[0].text


def test_litellm_knows_the_errors(lite):
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(model="openai/qwen3", **{**lite, "messages": [{"role": "user", "content": "Hi " * 5000}]})
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(model="openai/gpt", **lite)
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(model="openai/qwen3", temperature=9, **lite)
