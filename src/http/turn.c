#include "http/turn.h"

#include <stddef.h>

static void run_all(struct turn *turn)
{
    /* Items added meanwhile are run too. */
    while (turn->first) {
        struct turn_item *item = turn->first;

        turn->first = item->next;
        if (!turn->first)
            turn->end = &turn->first;
        item->is_queued = false;
        item->run(item); /* may free it */
    }
}

static void on_before(uv_prepare_t *handle)
{
    run_all(handle->data);
}

static void on_after(uv_check_t *handle)
{
    run_all(handle->data);
}

void turn_init(struct turn *turn, uv_loop_t *loop)
{
    *turn = (struct turn){.open = 2};
    turn->end = &turn->first;
    uv_prepare_init(loop, &turn->before);
    uv_check_init(loop, &turn->after);
    turn->before.data = turn->after.data = turn;
    uv_prepare_start(&turn->before, on_before);
    uv_check_start(&turn->after, on_after);
    uv_unref((uv_handle_t *)&turn->before);
    uv_unref((uv_handle_t *)&turn->after);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct turn *turn = handle->data;

    if (--turn->open == 0)
        turn->on_closed(turn);
}

void turn_close(struct turn *turn, void (*on_closed)(struct turn *turn))
{
    turn->on_closed = on_closed;
    uv_close((uv_handle_t *)&turn->before, on_handle_closed);
    uv_close((uv_handle_t *)&turn->after, on_handle_closed);
}

void turn_add(struct turn *turn, struct turn_item *item)
{
    if (item->is_queued)
        return;
    item->is_queued = true;
    item->next = NULL;
    *turn->end = item;
    turn->end = &item->next;
}

void turn_remove(struct turn *turn, struct turn_item *item)
{
    struct turn_item **at = &turn->first;

    if (!item->is_queued)
        return;
    while (*at != item)
        at = &(*at)->next;
    *at = item->next;
    if (!*at)
        turn->end = at;
    item->is_queued = false;
}
