/* server: what the parts of mysti_server share, as a plain aggregate of pointers.
 * main.c makes the parts, fills this in and passes it to every handler; nobody else
 * owns anything here. All of it belongs to the loop thread. A part that a build or a
 * test does not need may be NULL only where its comment says so. */
#ifndef MYSTI_SERVER_SERVER_H
#define MYSTI_SERVER_SERVER_H

#include <stdint.h>

struct config;
struct db;
struct devices;
struct events;
struct http_client;
struct http_server;
struct job_queue;
struct keys;
struct log;
struct sharing_watch;
struct store;
struct supervisor;
struct uv_loop_s;

struct server {
    struct uv_loop_s *loop;
    struct config *config; /* read it at use: it may change (config/reload.h) */
    /* Tells the parts that hold values of their own; after every change of config. */
    void (*configured)(struct server *server);
    struct log *log;
    const struct keys *keys; /* empty: none are asked for */
    struct http_server *http;
    struct http_client *client; /* connections to the workers */
    struct devices *devices;
    struct supervisor *supervisor;
    struct sharing_watch *sharing;
    struct store *store;
    struct db *db;
    struct job_queue *queue;
    struct events *events;
    int port;            /* the one really listened on */
    uint64_t started_ms; /* clock_ms() at start */
};

#endif
