/* refused_file: that a model file in memory is refused, and with which sentence. */
#ifndef MYSTI_TESTS_REFUSED_FILE_H
#define MYSTI_TESTS_REFUSED_FILE_H

#include "base/buf.h"

void expect_refusal(const struct buf *bytes, const char *sentence);
/* the same, and the file is released */
void refuse_and_release(struct buf bytes, const char *sentence);
/* Wherever the file is cut off: refused, and no byte behind the cut is read. */
void expect_cuts_refused(const struct buf *bytes);

#endif
