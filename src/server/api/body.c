/* Every value of a request goes through here, so that every complaint has the same form: the field, the rule, what was
 * there. Values are shown as JSON and cut short, in ASCII: they come from outside and end up in logs and terminals.
 *
 * A number that is whole may be written 20.0 (JavaScript and Lua have only one kind of number), but "20" in quotes is
 * refused: guessing types is how "0" becomes true somewhere else. null is the same as absent, as OpenAI's own
 * libraries send it. Depth is bounded by jansson (2,048 levels), size by the HTTP layer.
 */
#include "server/api/body.h"

#include "base/str.h"

#include <stdlib.h>
#include <string.h>

/* jansson quotes the place where it stopped, whatever bytes stand there. */
static void make_plain(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || (unsigned char)*s >= 0x7f)
            *s = '?';
}

json_t *body_parse(const char *data, size_t len, struct err *err)
{
    json_error_t why;

    if (len == 0) {
        err_set(err, ERR_INVALID, "the request has no body: a JSON object is expected");
        return NULL;
    }
    json_t *body = json_loadb(data, len, 0, &why);

    if (!body) {
        make_plain(why.text);
        err_set(err, ERR_INVALID,
                "the body is not valid JSON at line %d, column %d: %s", why.line,
                why.column, why.text);
        return NULL;
    }
    if (!json_is_object(body)) {
        err_set(err, ERR_INVALID, "the body must be a JSON object");
        json_decref(body);
        return NULL;
    }
    return body;
}

const char *body_shown(const json_t *value, char *ret, size_t size)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII);
    size_t n = text ? strlen(text) : 0;

    if (n < size)
        memcpy(ret, text ? text : "", n + 1);
    else
        snprintf(ret, size, "%.*s...", (int)size - 4, text);
    free(text);
    return ret;
}

/* NULL when absent or null */
static const json_t *value_of(const json_t *body, const char *key)
{
    const json_t *v = json_object_get(body, key);

    return json_is_null(v) ? NULL : v;
}

int body_whole(const json_t *body, const char *key, int64_t min, int64_t max,
               int64_t *ret, struct err *err)
{
    const json_t *v = value_of(body, key);
    char shown[48];

    if (!v)
        return 0;
    /* 20.0 is how some languages write 20 */
    if (json_is_real(v) && json_real_value(v) >= (double)min &&
        json_real_value(v) <= (double)max &&
        json_real_value(v) == (double)(int64_t)json_real_value(v)) {
        *ret = (int64_t)json_real_value(v);
        return 0;
    }
    if (!json_is_integer(v) || json_integer_value(v) < min ||
        json_integer_value(v) > max)
        return err_set_param(err, ERR_INVALID, key,
                             "%s must be a whole number from %lld to %lld, not %s", key,
                             (long long)min, (long long)max,
                             body_shown(v, shown, sizeof(shown)));
    *ret = json_integer_value(v);
    return 0;
}

int body_number(const json_t *body, const char *key, double min, double max,
                double *ret, struct err *err)
{
    const json_t *v = value_of(body, key);
    char shown[48];

    if (!v)
        return 0;
    double n = json_number_value(v);

    if (!json_is_number(v) || !(n >= min && n <= max))
        return err_set_param(err, ERR_INVALID, key,
                             "%s must be a number from %g to %g, not %s", key, min, max,
                             body_shown(v, shown, sizeof(shown)));
    *ret = n;
    return 0;
}

int body_bool(const json_t *body, const char *key, bool *ret, struct err *err)
{
    const json_t *v = value_of(body, key);
    char shown[48];

    if (!v)
        return 0;
    if (!json_is_boolean(v))
        return err_set_param(err, ERR_INVALID, key, "%s must be true or false, not %s",
                             key, body_shown(v, shown, sizeof(shown)));
    *ret = json_is_true(v);
    return 0;
}

int body_text(const json_t *body, const char *key, size_t max, const char **ret,
              struct err *err)
{
    const json_t *v = value_of(body, key);
    char shown[48];

    if (!v)
        return 0;
    if (!json_is_string(v))
        return err_set_param(err, ERR_INVALID, key, "%s must be a text, not %s", key,
                             body_shown(v, shown, sizeof(shown)));
    if (max && json_string_length(v) > max)
        return err_set_param(err, ERR_INVALID, key,
                             "%s is too long: %zu bytes, at most %zu are taken", key,
                             json_string_length(v), max);
    *ret = json_string_value(v);
    return 0;
}

const char *body_name(const json_t *body, const char *const *names)
{
    for (const char *const *n = names; *n; n++)
        if (value_of(body, *n))
            return *n;
    return names[0];
}
