/* devices: where models can lie: the machine's memory, and its graphics cards; or those that --simulate-device names, so
 * that every rule of memory can be seen on a machine that has none of them.
 *
 *   devices_open(&d, items, count, &err);              "ram=8G", "card=4G"
 *   devices_take_listed(d, line);                      which cards the text engine can use
 *   count = devices_look(d, "", list);                 list[PLAN_RAM] is the memory
 *   devices_close(d);
 */
#ifndef MYSTI_SERVER_MEMORY_DEVICES_H
#define MYSTI_SERVER_MEMORY_DEVICES_H

#include "base/err.h"
#include "server/memory/plan.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gpu {
    char name[96];
    char vendor[8]; /* "AMD", "Intel", "NVIDIA" */
    bool is_known;  /* its driver says how much memory it has */
    uint64_t total; /* bytes */
    uint64_t free;
    bool is_integrated; /* its memory is the machine's */
};

struct devices;

/* Simulated devices take the place of real ones of their kind. The NVIDIA driver's library is looked for
 * here, once. */
int devices_open(struct devices **ret, char *const *simulated, size_t count,
                 struct err *err) MUST_CHECK;
void devices_close(struct devices *d);
/* As they are now; ret has room for PLAN_DEVICES_MAX. Cards that do not say how much they have are left out. The free bytes
 * of a simulated one are its total: who knows what lies there takes it off. Returns how many, 0 when the machine
 * does not even say how much memory it has. */
int devices_look(const struct devices *d, const char *root, struct plan_device *ret);
/* Is the memory a simulated one? */
bool devices_simulate_memory(const struct devices *d);
/* The cards of this machine, whatever is simulated; d: NULL for without the NVIDIA library. Returns how many. */
int devices_gpus(const struct devices *d, const char *root, struct gpu *ret, int max);
/* One line of the list that the text engine gives of the cards it can use (listed.h); others are ignored. From then on they are
 * usable, and a card whose driver does not say what memory it has is as large as the engine says. */
void devices_take_listed(struct devices *d, const char *line);
/* What a process has on cards, all together. false: nothing, or it is not known. */
bool devices_of_process(const struct devices *d, const char *root, int pid,
                        uint64_t *ret);
/* docs/openapi.yaml, System.gpus. A new reference. */
json_t *devices_gpus_json(const struct devices *d, const char *root);

#endif
