/* sharing: tells the picture worker who goes first and whether text is running, so that it can leave the processor or
 * the graphics card to it between its steps.
 *
 *   struct sharing_watch *w = sharing_watch_new(client, supervisor, log, SHARING_TEXT_FIRST);
 *   sharing_watch_set(w, SHARING_EQUAL);     while running: a reload of the configuration
 *
 * Loop thread only. It costs nothing while no picture is being drawn. */
#ifndef MYSTI_SERVER_SHARING_SHARING_H
#define MYSTI_SERVER_SHARING_SHARING_H

#include "base/sharing.h"

struct http_client;
struct log;
struct sharing_watch;
struct supervisor;

/* Before supervisor_begin(). */
struct sharing_watch *sharing_watch_new(struct http_client *client,
                                        struct supervisor *supervisor, struct log *log,
                                        enum sharing sharing);
/* After the supervisor's shutdown, before the client is closed. NULL is fine. */
void sharing_watch_free(struct sharing_watch *w);
/* Holds at once for pictures. The text worker's threads take their place at its next start, which the log says. */
void sharing_watch_set(struct sharing_watch *w, enum sharing sharing);
enum sharing sharing_watch_get(const struct sharing_watch *w);

#endif
