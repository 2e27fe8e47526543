/* Ctrl-C: the handler says so and leaves the process. The kernel closes the connection, which is how any client tells
 * the server that it wants nothing more; a cancel request of its own would have to wait for an answer and could
 * hit somebody else's job. */
#include "cli/picture.h"

#include "base/base64.h"
#include "base/buf.h"
#include "base/file.h"
#include "cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void on_interrupt(int signal)
{
    static const char text[] = "\ncancelled\n";

    (void)signal;
    if (write(2, text, sizeof(text) - 1) < 0) {
        /* nobody to tell */
    }
    _exit(CLI_INTERRUPTED);
}

void picture_catch_interrupt(void)
{
    signal(SIGINT, on_interrupt);
}

static int write_stdout(const struct buf *png, struct err *err)
{
    if (fwrite(png->data, 1, png->len, stdout) != png->len || fflush(stdout))
        return err_set(err, ERR_STORAGE,
                       "cannot write the picture to standard output: %s",
                       strerror(errno));
    return 0;
}

int picture_write(const json_t *event, const char *path, struct err *err)
{
    const char *text = json_string_value(json_object_get(event, "b64_json"));
    struct buf png = {0};
    int rc;

    if (!text)
        return err_set(err, ERR_BAD_GATEWAY,
                       "the server sent an event without a picture");
    if (base64_decode(text, &png, err))
        rc = err_wrap(err, "the picture in the answer");
    else if (strcmp(path, "-") == 0)
        rc = write_stdout(&png, err);
    else
        rc = file_write_atomic(path, png.data, png.len, 0644, err);
    buf_release(&png);
    return rc;
}
