/* What a client can offer its user: the samplers and schedules, in the table's order. */
#include "base/sampling.h"
#include "server/api/api.h"
#include "server/api/handlers.h"

#include <jansson.h>

static json_t *named(const char *name, const char *label)
{
    return json_pack("{s:s, s:s}", "name", name, "label", label);
}

void samplers_list(struct api *api, struct http_exchange *x, const char *arg)
{
    json_t *samplers = json_array(), *schedulers = json_array();

    (void)api;
    (void)arg;
    for (int i = 0; i < SAMPLER_COUNT; i++) {
        enum sampler s = (enum sampler)i;
        json_t *row = named(sampler_name(s), sampler_label(s));

        json_object_set_new(row, "automatic_scheduler",
                            json_string(scheduler_name(sampler_scheduler(s))));
        json_array_append_new(samplers, row);
    }
    for (int i = 0; i < SCHEDULER_COUNT; i++)
        json_array_append_new(schedulers, named(scheduler_name((enum scheduler)i),
                                                scheduler_label((enum scheduler)i)));
    http_respond_json(x, 200,
                      json_pack("{s:o, s:o, s:[s, s]}", "samplers", samplers,
                                "schedulers", schedulers, "dialects",
                                dialect_name(DIALECT_A1111),
                                dialect_name(DIALECT_COMFY)));
}
