/* The configuration file: taken or refused with a sentence; what was taken prints as a file that means the same. */
#include "server/config/options.h"

#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int read_config(struct config *c, const void *data, size_t size, struct err *err)
{
    char path[64];
    int fd = memfd_create("config", MFD_CLOEXEC);
    int rc;

    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    config_init(c);
    rc = config_from_yaml(c, path, err);
    close(fd);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config c, again;
    struct buf text = {0}, second = {0};
    struct err err = {0};

    if (read_config(&c, data, size, &err)) {
        if (!err.message[0])
            abort();
    } else {
        config_print(&c, &text);
        if (read_config(&again, text.data, text.len, &err)) {
            fprintf(stderr, "%s\n", err.message);
            abort();
        }
        config_print(&again, &second);
        if (text.len != second.len || memcmp(text.data, second.data, text.len))
            abort();
        config_release(&again);
    }
    config_release(&c);
    buf_release(&text);
    buf_release(&second);
    return 0;
}
