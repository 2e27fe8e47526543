/* unicode: what the tokenizer has to know about characters: code points from UTF-8, letters, numbers and white
 * space, lower case, canonical composition (NFC).
 *
 *   uint32_t *text = mem_try_alloc(len * UNICODE_GROWTH * sizeof(*text));
 *   size_t n = unicode_decode(utf8, len, text);     the bytes must be valid: str_is_utf8()
 *   n = unicode_compose(text, n, scratch);
 *
 * Tables of Python's unicodedata, made at build time. Any thread, never fails. */
#ifndef MYSTI_ENGINE_TEXT_UNICODE_H
#define MYSTI_ENGINE_TEXT_UNICODE_H

#include <stddef.h>
#include <stdint.h>

enum unicode_class {
    UNICODE_OTHER,
    UNICODE_LETTER, /* \p{L} */
    UNICODE_NUMBER, /* \p{N} */
    UNICODE_SPACE,  /* White_Space */
};

/* No code point decomposes into more than this many. */
enum { UNICODE_GROWTH = 4 };

enum unicode_class unicode_class(uint32_t c);
/* One code point's lower case without regard to its neighbours; 1 or 2 code points, the number is returned. */
size_t unicode_lower_case(uint32_t c, uint32_t ret[2]);
/* len bytes of valid UTF-8 -> at most len code points */
size_t unicode_decode(const char *utf8, size_t len, uint32_t *ret);
/* 1..4 bytes, the number is returned */
size_t unicode_encode(uint32_t c, char ret[4]);
/* NFC in place: text has room for n * UNICODE_GROWTH, scratch for as many. Returns the new number. */
size_t unicode_compose(uint32_t *text, size_t n, uint64_t *scratch);

#endif
