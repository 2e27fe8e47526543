/* Any bytes as the body of a picture job. */
#include "sd_worker/request.h"

#include "fuzz.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct request r;
    struct err err = {0};
    int rc = request_parse(&r, REQUEST_GENERATE, (const char *)data, size, &err);

    if ((rc == 0) != (err.code == ERR_NONE) || (rc == 0 && !r.prompt && !r.upscaler))
        abort();
    request_release(&r);
    return 0;
}
