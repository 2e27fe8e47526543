/* Mysti's HTTP server and proxy and nothing else, for measuring these alone.
 *
 * usage: proxy_only --upstream-port N [--listen-port N]     prints "listening 127.0.0.1:PORT" */
#include "http/client.h"
#include "http/http.h"
#include "server/proxy/proxy.h"

static struct http_client *client;
static int upstream_port;

static void on_acquire(void *source, struct proxy *p)
{
    struct proxy_target target = {.port = upstream_port, .token = "bench"};

    (void)source;
    proxy_ready(p, &target);
}

static void handle(void *user, struct http_exchange *x)
{
    struct proxy_options o = {.client = client, .acquire = on_acquire};

    (void)user;
    if (!strcmp(http_path(x), "/health"))
        http_respond_text(x, 200, "ok\n");
    else
        proxy_forward(x, &o);
}

int main(int argc, char **argv)
{
    struct http_server_options o = {.on_request = handle};
    uv_loop_t *loop = uv_default_loop();
    struct http_server *server;
    int listen_port = 0;
    struct err err;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--upstream-port"))
            upstream_port = (int)strtol(argv[i + 1], NULL, 10);
        else if (!strcmp(argv[i], "--listen-port"))
            listen_port = (int)strtol(argv[i + 1], NULL, 10);
    }
    http_prepare_process();
    client = http_client_new(loop);
    server = http_server_new(loop, &o);
    if (http_server_listen(server, "127.0.0.1", listen_port, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    printf("listening 127.0.0.1:%d\n", http_server_port(server));
    fflush(stdout);
    return uv_run(loop, UV_RUN_DEFAULT);
}
