/* turn: things to do before the loop sleeps again. What must not happen inside a call (calling back,
 * freeing) is put here and happens in the same turn of the loop: right after the sockets were served,
 * or right before they are waited for, whichever comes first. No system call, no allocation. Owners put
 * an item into their struct; it may be added any number of times and runs once. */
#ifndef MYSTI_HTTP_TURN_H
#define MYSTI_HTTP_TURN_H

#include <stdbool.h>
#include <uv.h>

struct turn_item {
    struct turn_item *next;
    void (*run)(struct turn_item *item);
    bool is_queued;
};

struct turn {
    uv_prepare_t before;
    uv_check_t after;
    struct turn_item *first, **end;
    void (*on_closed)(struct turn *turn);
    unsigned open;
};

void turn_init(struct turn *turn, uv_loop_t *loop);
void turn_close(struct turn *turn, void (*on_closed)(struct turn *turn));
void turn_add(struct turn *turn, struct turn_item *item);
void turn_remove(struct turn *turn, struct turn_item *item);

#endif
