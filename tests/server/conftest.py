import pytest
from serving import MODELS, Server, compile_model


@pytest.fixture(scope="session")
def ada(tmp_path_factory):
    return compile_model(MODELS / "qwen3", tmp_path_factory.mktemp("serve") / "qwen3.ada")


@pytest.fixture(scope="session")
def gemma_ada(tmp_path_factory):
    return compile_model(MODELS / "gemma3", tmp_path_factory.mktemp("serve") / "gemma3.ada")


@pytest.fixture(scope="module")
def server(ada):
    s = Server(ada, "--ping-interval", "0.5")
    yield s
    s.stop()


@pytest.fixture(scope="module")
def gemma(gemma_ada):
    s = Server(gemma_ada)
    yield s
    s.stop()
