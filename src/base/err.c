#include "base/err.h"

#include <stdio.h>
#include <string.h>

static const struct {
    int status;
    const char *type;
    const char *slug;
} codes[] = {[ERR_NONE] = {200, "none", "none"},
#define X(name, status, type, slug) [ERR_##name] = {status, type, slug},
             ERR_CODES(X)
#undef X
};

static void set(struct err *err, enum err_code code, const char *param,
                const char *format, va_list args)
{
    if (!err)
        return;
    err->code = code;
    snprintf(err->param, sizeof(err->param), "%s", param);
    vsnprintf(err->message, sizeof(err->message), format, args);
}

int err_set(struct err *err, enum err_code code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    set(err, code, "", format, args);
    va_end(args);
    return -1;
}

int err_set_param(struct err *err, enum err_code code, const char *param,
                  const char *format, ...)
{
    va_list args;

    va_start(args, format);
    set(err, code, param, format, args);
    va_end(args);
    return -1;
}

int err_wrap(struct err *err, const char *format, ...)
{
    char old[sizeof(err->message)];
    va_list args;
    int n;

    if (!err)
        return -1;
    memcpy(old, err->message, sizeof(old));
    va_start(args, format);
    n = vsnprintf(err->message, sizeof(err->message), format, args);
    va_end(args);
    if (n >= 0 && (size_t)n + sizeof(": ") <= sizeof(err->message)) {
        char *at = err->message + n;
        size_t len = strnlen(old, sizeof(err->message) - (size_t)n - sizeof(": "));

        memcpy(at, ": ", 2);
        memcpy(at + 2, old, len);
        at[2 + len] = '\0';
    }
    return -1;
}

int err_http_status(enum err_code code)
{
    return codes[code].status;
}

const char *err_type(enum err_code code)
{
    return codes[code].type;
}

const char *err_slug(enum err_code code)
{
    return codes[code].slug;
}

enum err_code err_code_from_slug(const char *slug, enum err_code fallback)
{
    for (size_t i = 1; slug && i < sizeof(codes) / sizeof(codes[0]); i++)
        if (!strcmp(codes[i].slug, slug))
            return (enum err_code)i;
    return fallback;
}
