/* png_text: the text that a PNG file carries under a keyword ("parameters", "prompt",
 * "workflow"), without decoding the picture and without a picture library.
 *
 *   struct buf text = {0};
 *   int found = png_text_read(file.data, file.len, "parameters", &text, err);
 *
 * Reads tEXt (Latin-1, turned into UTF-8) and uncompressed iTXt chunks, which is what
 * Mysti, AUTOMATIC1111 and ComfyUI write. Foreign bytes are welcome: every length is
 * checked against what is there. */
#ifndef MYSTI_BASE_PNG_TEXT_H
#define MYSTI_BASE_PNG_TEXT_H

#include "base/buf.h"
#include "base/err.h"

/* 1: found, the UTF-8 text (at most 1 MiB of it) is appended to ret_text; 0: the PNG
 * has no such text; -1: not a PNG, cut short before its end, or the text is no valid
 * UTF-8. */
int png_text_read(const void *png, size_t len, const char *key, struct buf *ret_text,
                  struct err *err) MUST_CHECK;
/* The same for a file; reads only the chunks' heads and the text, never the pixels. */
int png_text_read_file(const char *path, const char *key, struct buf *ret_text,
                       struct err *err) MUST_CHECK;

#endif
