/* libcurl does the work. A request has no time limit but that of connecting: a picture may wait long in its queue,
 * and Ctrl-C ends it at any moment by ending the process; the server sees the connection close and takes the
 * job back. */
#include "cli/client.h"

#include "base/mem.h"
#include "base/str.h"
#include "cli/cli.h"

#include <curl/curl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { CONNECT_TIMEOUT_S = 5, ANSWER_MAX = 1 << 30 };

struct transfer {
    CURL *curl;
    struct curl_slist *headers;
    char *url;
    char *body;
    struct buf answer;  /* everything but an event stream */
    struct sse *events; /* NULL: a whole answer is wanted */
    char curl_error[CURL_ERROR_SIZE];
};

const char *client_server(const char *option)
{
    const char *env = getenv("MYSTI_SERVER");

    return option ? option : env && *env ? env : CLIENT_DEFAULT_SERVER;
}

static bool is_event_stream(CURL *curl)
{
    const char *type = NULL;
    long status = 0;

    curl_easy_getinfo(curl, CURLINFO_CONTENT_TYPE, &type);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    return status == 200 && type && strncmp(type, "text/event-stream", 17) == 0;
}

static size_t on_data(char *data, size_t size, size_t count, void *user)
{
    struct transfer *t = user;
    size_t len = size * count;

    if (t->events && is_event_stream(t->curl))
        sse_feed(t->events, data, len);
    else if (t->answer.len + len <= ANSWER_MAX)
        buf_append(&t->answer, data, len);
    else
        return 0;
    return len;
}

static void transfer_release(struct transfer *t)
{
    curl_slist_free_all(t->headers);
    if (t->curl)
        curl_easy_cleanup(t->curl);
    buf_release(&t->answer);
    free(t->url);
    free(t->body);
}

static int unreachable(const struct transfer *t, const char *server, CURLcode code,
                       struct err *err)
{
    const char *why = t->curl_error[0] ? t->curl_error : curl_easy_strerror(code);

    if (code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST)
        err_set(err, ERR_UNAVAILABLE,
                "no server at %s (%s). Start one with 'mysti_server' or 'make run', or "
                "name "
                "another with --server",
                server, why);
    else
        err_set(err, ERR_BAD_GATEWAY, "the connection to %s broke off: %s", server,
                why);
    return CLI_UNREACHABLE;
}

int client_error_of(const json_t *answer, struct err *err)
{
    const json_t *error = json_object_get(answer, "error");
    const char *message = json_string_value(json_object_get(error, "message"));
    const char *slug = json_string_value(json_object_get(error, "code"));

    if (!error || json_is_null(error))
        return 0;
    if (!message)
        message = json_is_string(error) ? json_string_value(error)
                                        : "an error without a message";
    return err_set(err, err_code_from_slug(slug ? slug : "", ERR_INTERNAL), "%s",
                   message);
}

/* What the answer's status and body mean; *ret_json is NULL when there is none. */
static int judge(struct transfer *t, const char *server, json_t **ret_json,
                 struct err *err)
{
    json_t *json = json_loadb(buf_str(&t->answer), t->answer.len, 0, NULL);
    long status = 0;
    int rc = CLI_OK;

    curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status >= 400) {
        rc = CLI_REFUSED;
        if (!client_error_of(json, err))
            err_set(err, ERR_BAD_GATEWAY, "%s answered with status %ld and no reason",
                    server, status);
    } else if (!json && !(t->events && is_event_stream(t->curl))) {
        rc = CLI_REFUSED;
        err_set(err, ERR_BAD_GATEWAY,
                "%s did not answer as Mysti does: is another program there?", server);
    }
    if (rc == CLI_OK && ret_json)
        *ret_json = json;
    else
        json_decref(json);
    return rc;
}

/* A proxy from the environment is for other machines. */
static bool is_this_machine(const char *url)
{
    const char *slashes = strstr(url, "//");
    const char *host = slashes ? slashes + 2 : url;

    return str_has_prefix(host, "127.") || str_has_prefix(host, "localhost") ||
           str_has_prefix(host, "[::1]");
}

/* From the environment alone: arguments are readable by every user of the machine. */
static void add_key(struct transfer *t)
{
    const char *key = getenv("MYSTI_API_KEY");
    char *field;

    if (!key || !*key)
        return;
    field = mem_printf("Authorization: Bearer %s", key);
    t->headers = curl_slist_append(t->headers, field);
    free(field);
}

static void set_options(struct transfer *t)
{
    CURL *c = t->curl;

    curl_easy_setopt(c, CURLOPT_URL, t->url);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_TIMEOUT_S);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, t->curl_error);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "mysti/" MYSTI_VERSION);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, t);
    if (is_this_machine(t->url))
        curl_easy_setopt(c, CURLOPT_PROXY, "");
    add_key(t);
    if (t->body) {
        t->headers = curl_slist_append(t->headers, "Content-Type: application/json");
        t->headers = curl_slist_append(t->headers, "Expect:");
        curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(t->body));
        curl_easy_setopt(c, CURLOPT_POSTFIELDS, t->body);
    }
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, t->headers);
}

static int perform(struct transfer *t, const char *server, const char *path,
                   json_t **ret_json, struct err *err)
{
    size_t len = strlen(server);
    CURLcode code;
    int rc;

    while (len && server[len - 1] == '/')
        len--;
    t->url = mem_printf("%.*s%s", (int)len, server, path);
    t->curl = curl_easy_init();
    if (!t->curl) {
        transfer_release(t);
        err_set(err, ERR_INTERNAL, "libcurl does not start");
        return CLI_REFUSED;
    }
    set_options(t);
    code = curl_easy_perform(t->curl);
    rc = code == CURLE_OK ? judge(t, server, ret_json, err)
                          : unreachable(t, server, code, err);
    transfer_release(t);
    return rc;
}

static char *dump(json_t *body)
{
    char *text = json_dumps(body, JSON_COMPACT);

    json_decref(body);
    return text ? text : mem_strdup("{}");
}

int client_get(const char *server, const char *path, json_t **ret, struct err *err)
{
    struct transfer t = {0};

    return perform(&t, server, path, ret, err);
}

int client_post(const char *server, const char *path, json_t *body, json_t **ret,
                struct err *err)
{
    struct transfer t = {.body = dump(body)};

    return perform(&t, server, path, ret, err);
}

int client_stream(const char *server, const char *path, json_t *body,
                  struct sse *events, struct err *err)
{
    struct transfer t = {.body = dump(body), .events = events};

    return perform(&t, server, path, NULL, err);
}

int client_complain(const char *command, int rc, const struct err *err)
{
    fprintf(stderr, "mysti %s: %s\n", command, err->message);
    return rc;
}
