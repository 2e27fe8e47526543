/* static: files below one folder, with ETag, Last-Modified and content types. Disk is
 * only touched on libuv's worker threads; large files are read piece by piece as the
 * client takes them.
 *
 *   struct http_static *page = http_static_new(loop, "/usr/share/mysti/public");
 *   http_static_serve(page, x, http_path(x));       // "/" and "/sub/" mean index.html
 *
 * Nothing outside the folder is ever opened, whatever the path or the links in it say;
 * names that start with a dot are not served. GET and HEAD only (405 otherwise).
 */
#ifndef MYSTI_HTTP_STATIC_H
#define MYSTI_HTTP_STATIC_H

#include "http/http.h"

struct http_static;

struct http_static *http_static_new(uv_loop_t *loop, const char *folder);
/* Exchanges that it still serves run to their end. */
void http_static_free(struct http_static *s);
/* Answers x. path is decoded and relative to the folder, with or without a slash in
 * front. Uses the exchange's user slot. cache_control may be NULL ("no-cache": ask with
 * the ETag each time). */
void http_static_serve(struct http_static *s, struct http_exchange *x, const char *path,
                       const char *cache_control);
const char *http_content_type(const char *file_name);

#endif
