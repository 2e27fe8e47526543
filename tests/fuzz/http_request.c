/* Requests as clients send them, pipelined ones too: see http_common.h. */
#include "fuzz.h"
#include "http_common.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_both_ways(MESSAGE_REQUEST, data, size);
    return 0;
}
