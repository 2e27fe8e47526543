/* The server's look at the head of a model file: an answer or a sentence, whatever the file says. */
#include "server/models/peek.h"

#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct model_peek peek;
    struct err err = {0};
    char path[64];
    int fd = memfd_create("model", MFD_CLOEXEC);

    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (model_peek(path, &peek, &err)) {
        if (!err.message[0] || err.code == ERR_NONE)
            abort();
    } else if (peek.size_bytes != size || !memchr(peek.architecture, 0, 64)) {
        abort();
    }
    close(fd);
    return 0;
}
