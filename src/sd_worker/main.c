/* mysti_sd_worker: the process around the diffusion engine. It listens first and loads later, so that its server
 * can ask how far it is. This thread runs the loop and nothing else; the engine has a thread of its own. */
#include "http/http.h"
#include "sd_worker/cage.h"
#include "sd_worker/inspect.h"
#include "sd_worker/options.h"
#include "sd_worker/worker.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { END_GRACE_MS = 300 };

struct end {
    struct http_server *http;
    struct worker *worker;
    uv_signal_t signals[2];
};

static void on_closed(void *user)
{
    (void)user;
    fflush(NULL);
    _exit(0); /* the compute thread may be in the middle of something: not waited for */
}

static void on_signal(uv_signal_t *handle, int signal)
{
    struct end *end = handle->data;

    (void)signal;
    uv_signal_stop(handle);
    worker_stop(end->worker);
    http_server_close(end->http, END_GRACE_MS, on_closed, NULL);
}

static int fail(const struct err *err)
{
    fprintf(stderr, "mysti_sd_worker: %s\n", err->message);
    return 1;
}

static int serve(const struct options *options, int threads, char *token)
{
    static const int ends[] = {SIGTERM, SIGINT};
    static struct end end;
    uv_loop_t *loop = uv_default_loop();
    struct http_server_options http = {.on_request = worker_on_request};
    struct err err = {0};

    http_prepare_process();
    if (worker_new(loop, options, threads, token, &end.worker, &err))
        return fail(&err);
    http.user = end.worker;
    end.http = http_server_new(loop, &http);
    if (http_server_listen(end.http, "127.0.0.1", options->listen_port, &err))
        return fail(&err);
    for (int i = 0; i < 2; i++) {
        uv_signal_init(loop, &end.signals[i]);
        end.signals[i].data = &end;
        uv_signal_start(&end.signals[i], on_signal, ends[i]);
    }
    printf("listening 127.0.0.1:%d\n", http_server_port(end.http));
    fflush(stdout);
    uv_run(loop, UV_RUN_DEFAULT);
    return 0;
}

int main(int argc, char **argv)
{
    struct options options;
    struct err err = {0};
    char *token;
    int rc = options_parse(&options, argc, argv);

    if (rc >= 0)
        return rc;
    if (options.inspect)
        return inspect(options.inspect);
    if (cage_enter(&err))
        return fail(&err);
    int threads = cage_threads(options.threads, argv);
    token = cage_take_token();
    if (!token) {
        err_set(&err, ERR_UNAUTHORIZED,
                "MYSTI_WORKER_TOKEN is not set: without a secret anybody on this "
                "machine could "
                "use the worker");
        return fail(&err);
    }
    return serve(&options, threads, token);
}
