/* reload: a configuration that changes while the server runs. One option at a time by request, or all of it again from
 * file, environment and arguments. The struct config stays the same one: who reads it at use sees the new value.
 *
 *   struct config_changes changes = {0};
 *   if (config_reread(&config, argc, argv, &changes, &err)) ...     nothing was changed
 *   ... tell the parts; changes.now, changes.later say what happened ...
 *   config_changes_release(&changes);
 *
 * Only options that are OPTION_LIVE or OPTION_AT_LOAD change; of the others it is said that they wait for a restart. */
#ifndef MYSTI_SERVER_CONFIG_RELOAD_H
#define MYSTI_SERVER_CONFIG_RELOAD_H

#include "server/config/config.h"

#include <jansson.h>

/* Names of options, as JSON lists. */
struct config_changes {
    json_t *now;      /* counts at once */
    json_t *at_load;  /* with the next start of a worker, or the next load */
    json_t *at_start; /* not before the server is started again: nothing was changed */
};

void config_changes_init(struct config_changes *c);
void config_changes_release(struct config_changes *c);

/* Reads everything again, as at the start. What was set at run time stays. On an error nothing has changed. */
int config_reread(struct config *c, int argc, char **argv, struct config_changes *ret,
                  struct err *err) MUST_CHECK;
/* values: {"max-steps": 50, "cors-origin": ["https://a.example"]}. All of it or nothing. */
int config_change(struct config *c, const json_t *values, struct config_changes *ret,
                  struct err *err) MUST_CHECK;
/* Every option: name, value, source, when it applies, what it is. A new reference. */
json_t *config_json(const struct config *c);

#endif
