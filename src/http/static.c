/* static: files below one folder.
 *
 * A file is opened, examined and its first piece read in one job on libuv's worker threads; the loop then
 * answers. Small files (nearly all of a page) are done with that. Of a large one the next piece is read
 * when the client has taken most of the last, so that a stalled reader costs two pieces of memory.
 *
 * Confinement is the kernel's: openat2() with RESOLVE_BENEATH refuses whatever leads out of the folder,
 * links included, without a race between looking and opening. Where the kernel or a sandbox lacks it, the
 * resolved path is compared instead. Names are checked before: no "..", nothing that begins with a dot.
 *
 * The ETag is made of size and time of change: two files of the same name, size and nanosecond are the
 * same to us. Range requests are answered whole, which RFC 9110 allows.
 *
 * A job may outlive its exchange (the client leaves while the disk is slow) and even its http_static; it
 * owns all it needs, and whoever is last frees it.
 */
#include "http/static.h"

#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PIECE_BYTES = 128 * 1024 };

struct http_static {
    uv_loop_t *loop;
    char *folder;
};

struct serving {
    uv_work_t work;
    struct http_exchange *x; /* NULL once it is over */
    char *folder, *name, *cache_control;
    char *piece;
    ssize_t piece_len;
    off_t at;
    struct stat st;
    int fd;
    int error; /* errno */
    bool is_working;
};

struct http_static *http_static_new(uv_loop_t *loop, const char *folder)
{
    struct http_static *s = mem_zalloc(sizeof(*s));

    s->loop = loop;
    s->folder = mem_strdup(folder);
    return s;
}

void http_static_free(struct http_static *s)
{
    if (!s)
        return;
    free(s->folder);
    free(s);
}

const char *http_content_type(const char *file_name)
{
    static const struct {
        const char *ending, *type;
    } known[] = {
        {"html", "text/html; charset=utf-8"},
        {"js", "text/javascript; charset=utf-8"},
        {"mjs", "text/javascript; charset=utf-8"},
        {"css", "text/css; charset=utf-8"},
        {"json", "application/json"},
        {"map", "application/json"},
        {"webmanifest", "application/manifest+json"},
        {"txt", "text/plain; charset=utf-8"},
        {"md", "text/plain; charset=utf-8"},
        {"yaml", "application/yaml"},
        {"png", "image/png"},
        {"jpg", "image/jpeg"},
        {"jpeg", "image/jpeg"},
        {"webp", "image/webp"},
        {"gif", "image/gif"},
        {"svg", "image/svg+xml"},
        {"ico", "image/x-icon"},
        {"woff", "font/woff"},
        {"woff2", "font/woff2"},
        {"wasm", "application/wasm"},
        {"mp4", "video/mp4"},
        {"webm", "video/webm"},
    };
    const char *dot = strrchr(file_name, '.');

    for (size_t i = 0; dot && i < sizeof(known) / sizeof(known[0]); i++)
        if (!strcasecmp(dot + 1, known[i].ending))
            return known[i].type;
    return "application/octet-stream";
}

/* ---- on a worker thread ---- */

static int open_resolved(const char *folder, const char *name)
{
    char *path = file_join(folder, name);
    char *root = realpath(folder, NULL);
    char *real = realpath(path, NULL);
    size_t len = root ? strlen(root) : 0;
    int fd = -1;

    errno = ENOENT;
    if (root && real && !strncmp(root, real, len) && real[len] == '/')
        fd = open(real, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    free(path);
    free(root);
    free(real);
    return fd;
}

static int open_beneath(const char *folder, const char *name)
{
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    int root = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd, error;

    if (root < 0)
        return -1;
    fd = (int)syscall(SYS_openat2, root, name, &how, sizeof(how));
    error = errno;
    close(root);
    if (fd < 0 && (error == ENOSYS || error == EPERM))
        return open_resolved(folder, name);
    errno = error;
    return fd;
}

static void read_piece(struct serving *v)
{
    off_t left = v->st.st_size - v->at;
    size_t want = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;

    if (!v->piece)
        v->piece = mem_alloc(want ? want : 1);
    v->piece_len = pread(v->fd, v->piece, want, v->at);
    if (v->piece_len < 0 || (v->piece_len == 0 && want))
        v->error = v->piece_len ? errno : EIO; /* an error, or it has shrunk */
}

static void work(uv_work_t *request)
{
    struct serving *v = request->data;

    if (v->fd < 0) {
        v->fd = open_beneath(v->folder, v->name);
        if (v->fd < 0 || fstat(v->fd, &v->st)) {
            v->error = errno;
            return;
        }
        if (!S_ISREG(v->st.st_mode)) {
            v->error = ENOENT;
            return;
        }
    }
    read_piece(v);
}

/* ---- on the loop ---- */

static void serving_free(struct serving *v)
{
    if (v->fd >= 0)
        close(v->fd);
    free(v->folder);
    free(v->name);
    free(v->cache_control);
    free(v->piece);
    free(v);
}

static void on_close(struct http_exchange *x, void *user, enum http_outcome outcome)
{
    struct serving *v = user;

    (void)x;
    (void)outcome;
    v->x = NULL;
    if (!v->is_working)
        serving_free(v);
}

static bool is_unchanged(const struct http_exchange *x, const char *etag,
                         time_t changed)
{
    const char *match = http_header(x, "if-none-match");
    const char *since = http_header(x, "if-modified-since");
    struct tm tm = {0};

    if (match)
        return strstr(match, etag) || !strcmp(match, "*");
    return since && strptime(since, "%a, %d %b %Y %H:%M:%S GMT", &tm) &&
           changed <= timegm(&tm);
}

static void begin_answer(struct serving *v)
{
    struct http_exchange *x = v->x;
    char etag[64], modified[40];
    struct tm tm;

    snprintf(etag, sizeof(etag), "\"%llx-%llx%08lx\"",
             (unsigned long long)v->st.st_size,
             (unsigned long long)v->st.st_mtim.tv_sec, v->st.st_mtim.tv_nsec);
    gmtime_r(&v->st.st_mtim.tv_sec, &tm);
    strftime(modified, sizeof(modified), "%a, %d %b %Y %H:%M:%S GMT", &tm);
    http_set_header(x, "etag", etag);
    http_set_header(x, "last-modified", modified);
    http_set_header(x, "cache-control", v->cache_control);
    http_set_header(x, "x-content-type-options", "nosniff");
    if (is_unchanged(x, etag, v->st.st_mtim.tv_sec)) {
        v->at = v->st.st_size;
        http_respond(x, 304, NULL, "", 0);
        return;
    }
    http_start(x, 200, http_content_type(v->name), v->st.st_size);
}

static void fail(struct serving *v)
{
    if (v->error == ENOENT || v->error == ENOTDIR || v->error == EXDEV ||
        v->error == ELOOP || v->error == ENAMETOOLONG)
        http_respond_error(v->x, ERR_NOT_FOUND, NULL, "There is no '%s' here.",
                           v->name);
    else if (v->error == EACCES)
        http_respond_error(v->x, ERR_FORBIDDEN, NULL, "'%s' may not be read.", v->name);
    else
        http_respond_error(v->x, ERR_INTERNAL, NULL, "Cannot read '%s': %s.", v->name,
                           strerror(v->error));
}

static void start_work(struct serving *v);

static void send_piece(struct serving *v)
{
    if (!http_started(v->x))
        begin_answer(v);
    if (v->at == v->st.st_size && v->st.st_size)
        return; /* not modified */
    http_write(v->x, v->piece, (size_t)v->piece_len);
    v->at += v->piece_len;
    if (v->at >= v->st.st_size || !strcmp(http_method(v->x), "HEAD"))
        http_end(v->x);
    else if (http_buffered(v->x) < PIECE_BYTES)
        start_work(v);
}

static void on_worked(uv_work_t *request, int status)
{
    struct serving *v = request->data;

    (void)status;
    v->is_working = false;
    if (!v->x)
        serving_free(v);
    else if (v->error)
        fail(v);
    else
        send_piece(v);
}

static void start_work(struct serving *v)
{
    if (v->is_working)
        return;
    v->is_working = true;
    uv_queue_work(http_loop(v->x), &v->work, work, on_worked);
}

static void on_drain(struct http_exchange *x, void *user)
{
    struct serving *v = user;

    (void)x;
    if (v->at < v->st.st_size)
        start_work(v);
}

static bool is_hidden(const char *path)
{
    return *path == '.' || strstr(path, "/.");
}

void http_static_serve(struct http_static *s, struct http_exchange *x, const char *path,
                       const char *cache_control)
{
    struct serving *v;
    char *name;

    if (strcmp(http_method(x), "GET") != 0 && strcmp(http_method(x), "HEAD") != 0) {
        http_set_header(x, "allow", "GET, HEAD");
        http_respond_error(x, ERR_METHOD, NULL, "Files are read with GET or HEAD.");
        return;
    }
    path += *path == '/';
    name = !*path || path[strlen(path) - 1] == '/' ? mem_printf("%sindex.html", path)
                                                   : mem_strdup(path);
    if (!file_is_confined(name) || is_hidden(name)) {
        http_respond_error(x, ERR_NOT_FOUND, NULL, "There is no '%s' here.", path);
        free(name);
        return;
    }
    v = mem_zalloc(sizeof(*v));
    v->work.data = v;
    v->x = x;
    v->fd = -1;
    v->folder = mem_strdup(s->folder);
    v->name = name;
    v->cache_control = mem_strdup(cache_control ? cache_control : "no-cache");
    http_set_user(x, v, on_close);
    http_on_drain(x, on_drain);
    start_work(v);
}
