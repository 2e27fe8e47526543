#include "base/file.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum err_code code_of(int e)
{
    switch (e) {
    case ENOENT:
    case ENOTDIR:
        return ERR_NOT_FOUND;
    case ENOSPC:
    case EDQUOT:
    case EACCES:
    case EPERM:
    case EROFS:
    case EIO:
        return ERR_STORAGE;
    default:
        return ERR_INTERNAL;
    }
}

int file_read(const char *path, size_t max_bytes, struct buf *ret_data, struct err *err)
{
    struct stat st;
    size_t before = ret_data->len;
    int rc = -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return err_set(err, code_of(errno), "cannot open %s: %s", path,
                       strerror(errno));
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        err_set(err, ERR_INVALID, "%s is not a regular file", path);
        goto out;
    }
    for (;;) {
        char *at = buf_reserve(ret_data, 65536);
        ssize_t n = read(fd, at, 65536);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            err_set(err, code_of(errno), "cannot read %s: %s", path, strerror(errno));
            goto out;
        }
        if (n == 0)
            break;
        ret_data->len += (size_t)n;
        if (ret_data->len - before > max_bytes) {
            err_set(err, ERR_TOO_LARGE, "%s is larger than %zu bytes", path, max_bytes);
            goto out;
        }
    }
    rc = 0;
out:
    if (ret_data->data)
        ret_data->data[rc ? before : ret_data->len] = '\0';
    if (rc)
        ret_data->len = before;
    close(fd);
    return rc;
}

static int write_all(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t n = write(fd, data, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

/* Without this the rename itself may be lost in a power cut. */
static void sync_folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? mem_strndup(path, slash == path ? 1 : (size_t)(slash - path))
                         : mem_strdup(".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    free(folder);
}

int file_write_atomic(const char *path, const void *data, size_t len, mode_t mode,
                      struct err *err)
{
    char *temporary = mem_printf("%s.XXXXXX", path);
    int fd = mkostemp(temporary, O_CLOEXEC);
    int e = 0;

    if (fd < 0) {
        e = errno;
        goto fail;
    }
    if (fchmod(fd, mode) || write_all(fd, data, len) || fsync(fd))
        e = errno;
    if (close(fd) && !e)
        e = errno;
    if (!e && rename(temporary, path))
        e = errno;
    if (e) {
        unlink(temporary);
        goto fail;
    }
    sync_folder_of(path);
    free(temporary);
    return 0;

fail:
    free(temporary);
    return err_set(err, code_of(e) == ERR_NOT_FOUND ? ERR_STORAGE : code_of(e),
                   "cannot write %s: %s", path, strerror(e));
}

int file_make_folder(const char *path, mode_t mode, struct err *err)
{
    char *part = mem_strdup(path);
    struct stat st;
    int rc = 0;

    for (char *p = part + 1; !rc; p++) {
        if (*p && *p != '/')
            continue;
        char c = *p;

        *p = '\0';
        if (mkdir(part, mode) && errno != EEXIST && stat(part, &st))
            rc = err_set(err,
                         code_of(errno) == ERR_NOT_FOUND ? ERR_STORAGE : code_of(errno),
                         "cannot create the folder %s: %s", part, strerror(errno));
        *p = c;
        if (!c)
            break;
    }
    if (!rc && (stat(path, &st) || !S_ISDIR(st.st_mode)))
        rc = err_set(err, ERR_STORAGE, "%s is not a folder", path);
    free(part);
    return rc;
}

bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

bool file_is_folder(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *file_join(const char *folder, const char *name)
{
    if (name[0] == '/' || !folder[0])
        return mem_strdup(name);
    return mem_printf("%s%s%s", folder, folder[strlen(folder) - 1] == '/' ? "" : "/",
                      name);
}

const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

bool file_is_confined(const char *name)
{
    const char *part = name;

    if (!*name || *name == '/')
        return false;
    for (const char *p = name;; p++) {
        if ((unsigned char)*p < 0x20 && *p)
            return false;
        if (*p == 0x7f || *p == '\\')
            return false;
        if (*p && *p != '/')
            continue;
        size_t n = (size_t)(p - part);

        if (n == 0 || (n == 1 && part[0] == '.') || (n == 2 && !memcmp(part, "..", 2)))
            return false;
        if (!*p)
            return true;
        part = p + 1;
    }
}

char *file_program_folder(void)
{
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
    char *slash;

    if (n <= 0)
        return mem_strdup(".");
    path[n] = '\0';
    slash = strrchr(path, '/');
    if (slash && slash != path)
        *slash = '\0';
    return mem_strdup(path);
}
