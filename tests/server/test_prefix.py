"""Clients with system prompts in common: most prompt tokens are found, and no id depends on it."""
import concurrent.futures
import random

from serving import Server

CLIENTS, PROMPTS, TURNS, COMMON, OWN = 64, 8, 3, 1000, 12


def ask(server, client, turn):
    system, own = random.Random(client % PROMPTS), random.Random(f"{client} {turn}")
    prompt = [system.randrange(600) for _ in range(COMMON)] + [own.randrange(600) for _ in range(OWN)]
    status, body, _ = server.call("/v1/completions", {"prompt": prompt, "max_tokens": 8, "temperature": 0, "ignore_eos": True, "return_token_ids": True})
    assert status == 200, body
    return body["choices"][0]["token_ids"]


def talk(server, client):
    return [ask(server, client, turn) for turn in range(TURNS)]


def test_shared_system_prompts(ada):
    server = Server(ada, "--disable-log-requests")
    try:
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            got = list(pool.map(lambda client: talk(server, client), range(CLIENTS)))
        found, asked = server.metric("adallm:prefix_cache_hits_total"), server.metric("adallm:prefix_cache_queries_total")
        print(f"{found / asked:.1%} of {asked:.0f} prompt tokens were found")
        assert asked == CLIENTS * TURNS * (COMMON + OWN) and found >= 0.9 * asked
        server.stop()
    finally:
        server.end()
    plain = Server(ada, "--disable-log-requests", "--no-enable-prefix-caching")
    try:
        for client in range(0, CLIENTS, 5):
            assert ask(plain, client, client % TURNS) == got[client][client % TURNS]
        assert plain.metric("adallm:prefix_cache_hits_total") == 0
    finally:
        plain.end()
