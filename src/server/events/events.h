/* events: tells everybody who listens where the running picture is: GET /v1/stream/progress. Each listener gets
 * the state as it is, then every change, and a comment every 15 s so that no proxy on the way closes the
 * connection. A listener who reads slowly gets fewer events, always ending with the newest one. Loop thread only.
 */
#ifndef MYSTI_SERVER_EVENTS_EVENTS_H
#define MYSTI_SERVER_EVENTS_EVENTS_H

struct events;
struct http_exchange;
struct job_queue;
struct uv_loop_s;

struct events *events_new(struct uv_loop_s *loop, struct job_queue *queue);
/* Before its queue is closed. Ends every stream, frees when its timer is closed (the loop has to turn once more). */
void events_free(struct events *e);
/* Answers x with the stream and keeps it until the client leaves. */
void events_subscribe(struct events *e, struct http_exchange *x);

#endif
