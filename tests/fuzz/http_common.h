/* What the two HTTP targets share: reading a stream of messages in pieces, and what must hold of each. */
#ifndef MYSTI_FUZZ_HTTP_COMMON_H
#define MYSTI_FUZZ_HTTP_COMMON_H

#include "http/message.h"

/* What came out of a stream of bytes. */
struct reading {
    struct buf heads, bodies;
    unsigned ended; /* messages that were complete */
    bool is_bad;
    enum err_code why;
};

/* Feeds data in pieces of 1 .. max_piece bytes (0: all at once), chosen by seed. */
void read_in_pieces(enum message_kind kind, const uint8_t *data, size_t size,
                    unsigned max_piece, unsigned seed, struct reading *ret_reading);
/* The first byte chooses the pieces; the rest is read whole and in pieces and must come out the same. */
void read_both_ways(enum message_kind kind, const uint8_t *data, size_t size);

#endif
