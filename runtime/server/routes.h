// The handlers that routes.def names.
#ifndef ADALLM_SERVER_ROUTES_H
#define ADALLM_SERVER_ROUTES_H
#include "runtime/server/http.h"

RouteWork work_generate_chat, work_generate_completion, work_generate_messages, work_generate_responses;
RouteWork work_count_tokens, work_apply_template, work_tokenize, work_detokenize;
RouteAnswer answer_tokenizer_info, answer_models, answer_model_by_id, answer_health, answer_ready,
    answer_version, answer_props, answer_slots, answer_stats, answer_load, answer_metrics, answer_page;
#endif
