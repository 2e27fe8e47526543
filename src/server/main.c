/* mysti_server: one loop, the parts on it, from the first line of the log to the last.
 *
 * Order at the start: options, log, port (a taken one ends it here, before anything was spawned), state folder and leftovers,
 * the parts, then the workers. Requests are answered from the first turn of the loop; the workers start in the
 * same moment and load while /health already tells so. Nothing slow happens before that turn: /health answers
 * within 50 ms of exec.
 *
 * Order at the end (SIGINT, SIGTERM): stop listening and let running answers end for a moment, ask the workers to go,
 * kill them after 3 s; then the parts, in the opposite order of who uses whom; the loop ends when the last
 * handle is closed. A second signal does not wait: it leaves at once, and the workers, which die with their
 * server, go with it.
 *
 * SIGHUP reads the configuration and the keys again; no model is stopped by that.
 *
 * Exit codes: 0 after a clean end, 1 when something is taken or cannot be written, 2 for a wrong option. */
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "http/client.h"
#include "http/http.h"
#include "server/api/api.h"
#include "server/config/config.h"
#include "server/config/reload.h"
#include "server/events/events.h"
#include "server/keys/keys.h"
#include "server/log/log.h"
#include "server/memory/devices.h"
#include "server/queue/queue.h"
#include "server/server.h"
#include "server/sharing/sharing.h"
#include "server/store/db.h"
#include "server/store/store.h"
#include "server/supervisor/supervisor.h"
#include "server/systemd/systemd.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

#define EXIT_TAKEN 1
#define EXIT_USAGE 2
#define MYSTI_DEFAULT_PORT 1234 /* where mysti, the command line, looks by itself */
#define GRACE_MS 500            /* for answers that are being sent when the end comes */

struct program {
    struct config config;
    uv_loop_t loop;
    struct server server;
    struct api *api;
    struct systemd systemd;
    struct keys keys;
    uv_signal_t signals[2];
    uv_signal_t hang_up; /* SIGHUP: read the configuration again */
    int argc;
    char **argv;
    bool is_welcomed;
    bool ending;
    int to_close; /* of HTTP server and supervisor, before the parts they use may go */
};

static int print_and_release(struct buf *text)
{
    fputs(buf_str(text), stdout);
    buf_release(text);
    return fflush(stdout) ? EXIT_TAKEN : 0;
}

/* --mode: become the worker beside this program. */
static int become_worker(const struct config *c, const char *name)
{
    char *folder = file_program_folder();
    char *path = file_join(folder, name);
    char **argv = mem_zalloc(((size_t)c->rest_count + 2) * sizeof(*argv));

    argv[0] = mem_strdup(name);
    for (int i = 0; i < c->rest_count; i++)
        argv[i + 1] = c->rest[i];
    execv(path, argv);
    fprintf(stderr, "mysti_server: cannot start %s: %s\n", path, strerror(errno));
    return EXIT_TAKEN;
}

static void on_finished(void *user, struct http_exchange *x, int status, uint64_t bytes,
                        double ms)
{
    struct program *p = user;

    log_debug(p->server.log, "%s %s -> %d, %" PRIu64 " bytes, %.1f ms, %s",
              http_method(x), http_path(x), status, bytes, ms, http_request_id(x));
}

static void on_request(void *user, struct http_exchange *x)
{
    struct program *p = user;

    api_handle(p->api, x);
}

/* ---- the end ---- */

static void on_db_closed(void *user)
{
    struct program *p = user;

    http_client_close(p->server.client, NULL, NULL);
}

static void on_queue_closed(void *user)
{
    struct program *p = user;

    api_free(p->api);
    store_free(p->server.store);
    sharing_watch_free(p->server.sharing);
    supervisor_free(p->server.supervisor);
    devices_close(p->server.devices);
    db_close(p->server.db, on_db_closed, p);
}

static void on_part_closed(struct program *p)
{
    if (--p->to_close > 0)
        return;
    log_info(p->server.log, "Workers terminated. Exiting.");
    events_free(p->server.events);
    job_queue_close(p->server.queue, on_queue_closed, p);
}

static void on_http_closed(void *user)
{
    on_part_closed(user);
}

static void on_workers_gone(void *user, const struct err *err)
{
    (void)err;
    on_part_closed(user);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct program *p = handle->data;

    if (p->ending) {
        log_warning(p->server.log, "Second signal (%s): leaving at once.",
                    strsignal(number));
        log_free(p->server.log);
        _exit(EXIT_TAKEN);
    }
    p->ending = true;
    log_info(p->server.log, "Shutdown signal received. Cleaning up...");
    systemd_notify(&p->systemd, "STOPPING=1\nSTATUS=Ending what runs");
    for (int i = 0; i < 2; i++)
        uv_unref((uv_handle_t *)&p->signals[i]);
    job_queue_hold(p->server.queue);
    p->to_close = 2;
    http_server_close(p->server.http, GRACE_MS, on_http_closed, p);
    supervisor_shutdown(p->server.supervisor, on_workers_gone, p);
}

/* ---- the beginning ---- */

/* What to do now, once, when pictures and text have their models: a newcomer reads the log and nothing else. */
static void welcome(void *user, int id)
{
    struct program *p = user;
    struct log *log = p->server.log;
    char at[48] = "";
    char *folder;

    (void)id;
    if (p->is_welcomed ||
        !supervisor_is_ready(p->server.supervisor, WORKER_SD, NEED_MODEL) ||
        !supervisor_is_ready(p->server.supervisor,
                             supervisor_default_text(p->server.supervisor), NEED_MODEL))
        return;
    p->is_welcomed = true;
    systemd_notify(&p->systemd, "STATUS=Serving on port %d", p->server.port);
    folder = file_program_folder();
    if (p->server.port != MYSTI_DEFAULT_PORT)
        snprintf(at, sizeof(at), " --server http://localhost:%d", p->server.port);
    log_info(log, "Ready. Open http://localhost:%d, or try in another terminal:",
             p->server.port);
    log_info(log, "  %s/mysti write%s \"a boat at night\"", folder, at);
    log_info(log, "  %s/mysti draw%s \"a red circle on a blue background\"", folder,
             at);
    free(folder);
}

static struct http_limits limits_of(const struct config *c)
{
    return (struct http_limits){.head_bytes = (size_t)c->header_limit,
                                .body_bytes = (size_t)c->body_limit,
                                .max_connections = (size_t)c->max_connections,
                                .head_timeout_ms = (unsigned)c->head_timeout_s * 1000,
                                .idle_timeout_ms = (unsigned)c->idle_timeout_s * 1000};
}

static enum sharing sharing_of(const struct config *c)
{
    enum sharing sharing = SHARING_TEXT_FIRST;

    (void)!sharing_parse(c->sharing, "sharing", &sharing, NULL); /* a choice */
    return sharing;
}

static struct job_queue_options queue_options_of(const struct config *c)
{
    return (struct job_queue_options){.limit = (size_t)c->queue_limit,
                                      .client_limit = (size_t)c->client_queue_limit,
                                      .age_bound_ms = (unsigned)c->queue_age_s * 1000,
                                      .keep = (int)c->job_history,
                                      .silence_limit_ms =
                                          (unsigned)c->first_byte_timeout_s * 1000};
}

/* What the parts keep of the configuration. Everything else is read from it at use. */
static void on_configured(struct server *s)
{
    const struct http_limits limits = limits_of(s->config);
    const struct job_queue_options queue = queue_options_of(s->config);

    log_set_level(s->log, s->config->verbose ? LOG_DEBUG : LOG_INFO);
    http_server_set_limits(s->http, &limits);
    job_queue_set_limits(s->queue, &queue);
    sharing_watch_set(s->sharing, sharing_of(s->config));
}

static int listen_on(struct program *p, struct err *err)
{
    const struct config *c = &p->config;
    struct http_server_options o = {
        .limits = limits_of(c),
        .on_request = on_request,
        .on_finished = on_finished,
        .user = p,
    };

    p->server.http = http_server_new(&p->loop, &o);
    for (int i = 0; i < p->systemd.fd_count; i++)
        if (http_server_listen_fd(p->server.http, p->systemd.fds[i], err))
            return -1;
    if (p->systemd.fd_count) {
        log_info(p->server.log,
                 "Starting Orchestrator on port %d... (%d socket%s from "
                 "systemd; --listen-ip and --listen-port do not count)",
                 http_server_port(p->server.http), p->systemd.fd_count,
                 p->systemd.fd_count == 1 ? "" : "s");
    } else {
        log_info(p->server.log, "Starting Orchestrator on port %" PRId64 "...",
                 c->listen_port);
        if (http_server_listen(p->server.http, c->listen_ip, (int)c->listen_port, err))
            return -1;
    }
    if (p->systemd.fds_too_many)
        log_warning(p->server.log,
                    "%d sockets from systemd are more than the %d that are served on",
                    p->systemd.fd_count + p->systemd.fds_too_many, p->systemd.fd_count);
    p->server.port = http_server_port(p->server.http);
    return 0;
}

/* Nobody but this machine may ask without a key. */
static int read_keys(struct program *p, struct err *err)
{
    const struct config *c = &p->config;
    struct err why = {0};

    p->server.keys = &p->keys;
    if (keys_read(c->key_file, &p->keys, &why)) {
        if (why.code != ERR_NOT_FOUND)
            return err_set(err, why.code, "%s", why.message);
    }
    if (p->keys.count) {
        log_info(p->server.log, "%zu key%s in %s: requests want one", p->keys.count,
                 p->keys.count == 1 ? "" : "s", c->key_file);
        return 0;
    }
    if (http_server_is_loopback(p->server.http))
        return 0;
    return err_set(
        err, ERR_FORBIDDEN,
        "this server would answer anybody in the network, and there are no keys "
        "in %s: make one with \"mysti_server --new-key NAME infer\" (or admin), "
        "or listen on 127.0.0.1",
        c->key_file);
}

static int make_parts(struct program *p, struct err *err)
{
    struct server *s = &p->server;
    struct supervisor_options workers = {.loop = &p->loop,
                                         .log = s->log,
                                         .config = &p->config,
                                         .client = http_client_new(&p->loop)};
    struct job_queue_options queue = queue_options_of(&p->config);
    char *database = file_join(p->config.home, "mysti.db");

    s->client = workers.client;
    if (db_check(database, err) ||
        devices_open(&s->devices, p->config.simulated_devices.items,
                     p->config.simulated_devices.count, err))
        return -1; /* the program ends */
    workers.devices = s->devices;
    if (supervisor_new(&workers, &s->supervisor, err))
        return -1;
    s->sharing =
        sharing_watch_new(s->client, s->supervisor, s->log, sharing_of(s->config));
    s->store = store_new(&p->loop, p->config.output_dir);
    s->db = db_open(&p->loop, s->log, database);
    free(database);
    queue.loop = &p->loop;
    queue.log = s->log;
    queue.client = s->client;
    queue.db = s->db;
    queue.home = p->config.home;
    queue.supervisor = s->supervisor;
    queue.store = s->store;
    s->queue = job_queue_new(&queue);
    s->events = events_new(&p->loop, s->queue);
    p->api = api_new(s);
    supervisor_listen(s->supervisor, welcome, p);
    return 0;
}

/* Names of options, for the log. */
static void log_names(struct log *log, const char *what, const json_t *names)
{
    struct buf text = {0};
    size_t i;
    json_t *name;

    json_array_foreach((json_t *)(uintptr_t)names, i, name)
    {
        buf_printf(&text, "%s%s", i ? ", " : "", json_string_value(name));
    }
    if (text.len)
        log_info(log, "Configuration: %s: %s", what, buf_str(&text));
    buf_release(&text);
}

/* Keys, too: taking one away must not need a restart. */
static void reread_keys(struct program *p)
{
    struct keys fresh;
    struct err err = {0};

    if (keys_read(p->config.key_file, &fresh, &err)) {
        if (p->keys.count)
            log_error(p->server.log, "%s; the old keys stay", err.message);
        return;
    }
    if (p->keys.count && !fresh.count) {
        log_error(p->server.log, "no key is left in %s; the old keys stay",
                  p->config.key_file);
        return;
    }
    keys_release(&p->keys);
    p->keys = fresh;
    log_info(p->server.log, "%zu keys in %s", p->keys.count, p->config.key_file);
}

static void on_hang_up(uv_signal_t *handle, int number)
{
    struct program *p = handle->data;
    struct log *log = p->server.log;
    struct config_changes changes;
    struct err err = {0};

    (void)number;
    systemd_reloading(&p->systemd);
    config_changes_init(&changes);
    if (config_reread(&p->config, p->argc, p->argv, &changes, &err)) {
        log_error(log, "The configuration stays as it is: %s", err.message);
    } else {
        on_configured(&p->server);
        log_info(log, "Configuration read again");
        log_names(log, "changed", changes.now);
        log_names(log, "counts with the next load", changes.at_load);
        log_names(log, "counts after a restart", changes.at_start);
        reread_keys(p);
    }
    config_changes_release(&changes);
    systemd_notify(&p->systemd, "READY=1");
}

static void watch_signals(struct program *p)
{
    const int numbers[2] = {SIGINT, SIGTERM};

    for (int i = 0; i < 2; i++) {
        uv_signal_init(&p->loop, &p->signals[i]);
        p->signals[i].data = p;
        uv_signal_start(&p->signals[i], on_signal, numbers[i]);
        uv_unref((uv_handle_t *)&p->signals[i]);
    }
    uv_signal_init(&p->loop, &p->hang_up);
    p->hang_up.data = p;
    uv_signal_start(&p->hang_up, on_hang_up, SIGHUP);
    uv_unref((uv_handle_t *)&p->hang_up);
}

static void log_lines(struct log *log, const char *lines)
{
    while (*lines) {
        size_t n = strcspn(lines, "\n");

        log_info(log, "%.*s", (int)n, lines);
        lines += n + (lines[n] == '\n');
    }
}

static void close_signals(struct program *p)
{
    for (int i = 0; i < 2; i++)
        uv_close((uv_handle_t *)&p->signals[i], NULL);
    uv_close((uv_handle_t *)&p->hang_up, NULL);
    systemd_close(&p->systemd);
    uv_run(&p->loop, UV_RUN_DEFAULT);
}

static int serve(struct program *p, const char *notes)
{
    struct err err = {0};

    p->server.started_ms = clock_ms();
    p->server.config = &p->config;
    p->server.configured = on_configured;
    p->server.loop = &p->loop;
    p->server.log = log_new(STDOUT_FILENO, p->config.verbose ? LOG_DEBUG : LOG_INFO);
    uv_loop_init(&p->loop);
    if (listen_on(p, &err) || read_keys(p, &err) || make_parts(p, &err)) {
        log_error(p->server.log, "%s", err.message);
        systemd_notify(&p->systemd, "STATUS=%s", err.message);
        log_free(p->server.log);
        _exit(EXIT_TAKEN); /* the kernel is the quickest to clean up half a start */
    }
    log_lines(p->server.log, notes);
    watch_signals(p);
    if (!p->systemd.fd_count)
        log_info(p->server.log, "Orchestrator listening on %s:%d", p->config.listen_ip,
                 p->server.port);
    supervisor_begin(p->server.supervisor);
    job_queue_restore(p->server.queue);
    systemd_watch(&p->systemd, &p->loop);
    systemd_notify(&p->systemd, "READY=1\nSTATUS=Loading models");
    uv_run(&p->loop, UV_RUN_DEFAULT);
    close_signals(p);
    keys_release(&p->keys);
    uv_loop_close(&p->loop);
    log_free(p->server.log);
    return 0;
}

/* --new-key NAME SCOPE: the key is shown this once. */
static int make_key(const struct config *c)
{
    char secret[KEY_SECRET_SIZE];
    enum key_scope scope;
    struct err err = {0};
    char *folder =
        mem_strndup(c->key_file, (size_t)(file_name(c->key_file) - c->key_file));
    int rc = EXIT_TAKEN;

    if (key_scope_parse(c->rest[1], &scope, &err)) {
        rc = EXIT_USAGE;
    } else if (file_make_folder(folder, 0700, &err) == 0 &&
               keys_add(c->key_file, c->rest[0], scope, secret, &err) == 0) {
        printf("%s\n", secret);
        fprintf(
            stderr,
            "That is the key of '%s' (%s). It is in %s now and asked for from the next "
            "start on;\na client sends it as \"Authorization: Bearer KEY\", the "
            "command line takes it from MYSTI_API_KEY.\n",
            c->rest[0], key_scope_word(scope), c->key_file);
        rc = 0;
    }
    if (err.code)
        fprintf(stderr, "mysti_server: %s\n", err.message);
    free(folder);
    return rc;
}

static int act(struct program *p, const char *name)
{
    struct buf text = {0};
    struct err err = {0};
    int rc;

    switch (p->config.action) {
    case CONFIG_SHOW_HELP:
        config_print_help(&text, name);
        return print_and_release(&text);
    case CONFIG_SHOW_VERSION:
        buf_printf(&text, "mysti_server %s\n", MYSTI_VERSION);
        return print_and_release(&text);
    case CONFIG_SD_WORKER:
        return become_worker(&p->config, "mysti_sd_worker");
    case CONFIG_LLM_WORKER:
        return become_worker(&p->config, "mysti_llm_worker");
    case CONFIG_SHOW_CONFIG:
    case CONFIG_NEW_KEY:
    case CONFIG_RUN:
        break;
    }
    if (config_resolve(&p->config, &text, &err)) {
        fprintf(stderr, "mysti_server: %s\n", err.message);
        return EXIT_USAGE;
    }
    if (p->config.action == CONFIG_NEW_KEY)
        return make_key(&p->config);
    if (p->config.action == CONFIG_SHOW_CONFIG) {
        buf_clear(&text);
        config_print(&p->config, &text);
        return print_and_release(&text);
    }
    http_prepare_process();
    systemd_open(&p->systemd);
    rc = serve(p, buf_str(&text));
    buf_release(&text);
    return rc;
}

int main(int argc, char **argv)
{
    struct program p = {0};
    struct err err = {0};
    int rc;

    p.argc = argc;
    p.argv = argv;
    config_init(&p.config);
    if (config_from_args(&p.config, argc, argv, &err)) {
        fprintf(stderr, "mysti_server: %s\n", err.message);
        return EXIT_USAGE;
    }
    rc = act(&p, file_name(argv[0]));
    config_release(&p.config);
    return rc;
}
