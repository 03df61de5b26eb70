#!/usr/bin/env python3
"""Write contrib/grafana.json, a dashboard of what /metrics tells. Import it in Grafana and choose a Prometheus source."""
import json
import pathlib

PANELS = [  # title, unit, [(expression, legend)]
    ("Tokens a second", "short", [("rate(adallm:generation_tokens_total[1m])", "generated"), ("rate(adallm:prompt_tokens_total[1m])", "prompts")]),
    ("Sequences", "short", [("adallm:num_requests_running", "running"), ("adallm:num_requests_waiting", "waiting"), ("adallm:slots", "slots")]),
    ("KV cache in use", "percentunit", [("adallm:kv_cache_usage_ratio", "used")]),
    ("Time to the first token", "s", [(f"histogram_quantile({q}, sum by (le) (rate(adallm:time_to_first_token_seconds_bucket[5m])))", f"p{int(q * 100)}") for q in (0.5, 0.9, 0.99)]),
    ("Between two tokens", "s", [(f"histogram_quantile({q}, sum by (le) (rate(adallm:inter_token_latency_seconds_bucket[5m])))", f"p{int(q * 100)}") for q in (0.5, 0.9, 0.99)]),
    ("Whole answers", "s", [(f"histogram_quantile({q}, sum by (le) (rate(adallm:e2e_request_latency_seconds_bucket[5m])))", f"p{int(q * 100)}") for q in (0.5, 0.9, 0.99)]),
    ("Prompt tokens found in the cache", "percentunit", [("rate(adallm:prefix_cache_hits_total[5m]) / rate(adallm:prefix_cache_queries_total[5m])", "found")]),
    ("Answers by how they ended", "short", [("rate(adallm:request_success_total[1m])", "{{finished_reason}}")]),
    ("HTTP answers", "short", [("rate(adallm:http_responses_total[1m])", "{{status}}")]),
    ("Trouble", "short", [("rate(adallm:requests_refused_total[1m])", "refused"), ("rate(adallm:num_preemptions_total[1m])", "preempted"),
                          ("rate(adallm:clients_gone_total[1m])", "gone"), ("rate(adallm:clients_stalled_total[1m])", "stalled")]),
    ("Steps", "s", [("rate(adallm:decode_step_seconds_sum[1m]) / rate(adallm:decode_step_seconds_count[1m])", "decode"),
                    ("rate(adallm:mixed_step_seconds_sum[1m]) / rate(adallm:mixed_step_seconds_count[1m])", "with prompts")]),
    ("Connections", "short", [("adallm:connections", "open")]),
]


def panel(i, title, unit, targets):
    source = {"type": "prometheus", "uid": "${source}"}
    return {"id": i + 1, "type": "timeseries", "title": title, "datasource": source, "gridPos": {"x": i % 3 * 8, "y": i // 3 * 8, "w": 8, "h": 8},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "targets": [{"refId": chr(65 + k), "expr": e, "legendFormat": name, "datasource": source} for k, (e, name) in enumerate(targets)]}


def dashboard():
    return {"title": "adallm", "uid": "adallm", "schemaVersion": 39, "time": {"from": "now-1h", "to": "now"}, "refresh": "10s",
            "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus"}]}, "panels": [panel(i, *p) for i, p in enumerate(PANELS)]}


if __name__ == "__main__":
    pathlib.Path(__file__).with_name("grafana.json").write_text(json.dumps(dashboard(), indent=1) + "\n")
