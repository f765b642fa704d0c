#include "lua_core.h"

#include <string.h>

/*
 * The table of multi:request { ... } and multi:websocket { ... }: the fields of osb_request under the same names; `headers` is an
 * array of "Name: value", `parts` (with a `boundary`) an array of { name =, filename =, type =, data = | path = | reader = true, size = }.
 * The table is checked, not interpreted: which values make sense is the Lua layer's business.
 *
 * Reading a field can run Lua (__index), which can do anything, also to the table. The values to which the request points are therefore
 * kept in another table, at index 3.
 */

enum { TABLE = 2, KEPT = 3 };

#define MAX_PART_SIZE 9007199254740992.0 /* bytes: beyond 2^53 not every whole number is a double */
#define MAX_SECONDS 1e15

/* Moves the value on top of the stack to the kept ones. */
static void keep(lua_State *L)
{
    lua_rawseti(L, KEPT, (int)osb_rawlen(L, KEPT) + 1);
}

static const char *string_field(lua_State *L, int table, const char *name, size_t *length)
{
    const char *text;

    lua_getfield(L, table, name);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        return NULL;
    }
    if (lua_type(L, -1) != LUA_TSTRING)
        luaL_error(L, "request field '%s' must be a string", name);
    text = lua_tolstring(L, -1, length);
    if (!length && strlen(text) != osb_rawlen(L, -1))
        luaL_error(L, "request field '%s' holds a NUL byte", name);
    keep(L);
    return text;
}

/* Strings are not converted, because that depends on the locale. */
static double number_field(lua_State *L, int table, const char *name, double otherwise, double least, double most)
{
    double value = otherwise;

    lua_getfield(L, table, name);
    if (!lua_isnil(L, -1)) {
        value = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : least - 1;
        if (!(value >= least && value <= most))
            luaL_error(L, "request field '%s' must be a number from %f to %f", name, (lua_Number)least, (lua_Number)most);
    }
    lua_pop(L, 1);
    return value;
}

static double seconds_field(lua_State *L, const char *name)
{
    return number_field(L, TABLE, name, 0, -MAX_SECONDS, MAX_SECONDS);
}

static int flag_field(lua_State *L, int table, const char *name)
{
    int value;

    lua_getfield(L, table, name);
    value = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return value;
}

/* Pushes the array field `name`, or nil, and returns its length. */
static size_t array_field(lua_State *L, const char *name)
{
    lua_getfield(L, TABLE, name);
    if (lua_isnil(L, -1))
        return 0;
    luaL_checktype(L, -1, LUA_TTABLE);
    return osb_rawlen(L, -1);
}

static void read_headers(lua_State *L, osb_request *request)
{
    size_t count = array_field(L, "headers");
    const char **headers;
    size_t i;

    if (count == 0) {
        lua_pop(L, 1);
        return;
    }
    headers = lua_newuserdata(L, count * sizeof *headers); /* memory that no error can leak */
    for (i = 0; i < count; ++i) {
        lua_rawgeti(L, -2, (int)i + 1);
        headers[i] = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
        if (!headers[i])
            luaL_error(L, "a header must be a string");
        if (strlen(headers[i]) != osb_rawlen(L, -1) || strpbrk(headers[i], "\r\n"))
            luaL_error(L, "a header holds a line end or a NUL byte");
        keep(L);
    }
    keep(L);
    lua_pop(L, 1);
    request->headers = headers;
    request->header_count = count;
}

static void read_part(lua_State *L, osb_part *part)
{
    int table = lua_gettop(L);
    size_t length = 0;

    luaL_checktype(L, table, LUA_TTABLE);
    memset(part, 0, sizeof *part);
    part->name = string_field(L, table, "name", NULL);
    part->filename = string_field(L, table, "filename", NULL);
    part->type = string_field(L, table, "type", NULL);
    part->data = string_field(L, table, "data", &length);
    part->path = string_field(L, table, "path", NULL);
    part->kind = part->data ? OSB_PART_MEMORY : part->path ? OSB_PART_FILE : OSB_PART_READER;
    part->size = part->data ? (int64_t)length : (int64_t)number_field(L, table, "size", -1, -1, MAX_PART_SIZE);
    if (!part->name || !part->filename)
        luaL_error(L, "a part needs a name and a filename");
    if (part->kind == OSB_PART_READER && !flag_field(L, table, "reader"))
        luaL_error(L, "a part needs data, path or reader");
}

static void read_parts(lua_State *L, osb_request *request)
{
    size_t count = array_field(L, "parts");
    osb_part *parts;
    size_t i;

    if (count == 0) {
        lua_pop(L, 1);
        return;
    }
    parts = lua_newuserdata(L, count * sizeof *parts);
    for (i = 0; i < count; ++i) {
        lua_rawgeti(L, -2, (int)i + 1);
        read_part(L, &parts[i]);
        lua_pop(L, 1);
    }
    keep(L);
    lua_pop(L, 1);
    request->parts = parts;
    request->part_count = count;
    request->boundary = string_field(L, TABLE, "boundary", NULL);
    if (!request->boundary)
        luaL_error(L, "parts need a boundary");
}

void osb_read_request(lua_State *L, osb_request *request)
{
    memset(request, 0, sizeof *request);
    request->method = string_field(L, TABLE, "method", NULL);
    request->url = string_field(L, TABLE, "url", NULL);
    if (!request->url)
        luaL_error(L, "a request needs a url");
    if (!request->method)
        request->method = "GET";
    request->body = string_field(L, TABLE, "body", &request->body_length);
    request->may_repeat = flag_field(L, TABLE, "may_repeat");
    request->max_event = (size_t)number_field(L, TABLE, "max_event", 0, 1, OSB_MAX_BYTES);
    request->sink = string_field(L, TABLE, "sink", NULL);
    request->sink_mode = (int)number_field(L, TABLE, "sink_mode", -1, -1, 0777);
    request->high_water = (size_t)number_field(L, TABLE, "high_water", 256.0 * 1024, 1, OSB_MAX_BYTES);
    request->receive_buffer = (long)number_field(L, TABLE, "receive_buffer", 64.0 * 1024, 0, 1024.0 * 1024 * 1024);
    request->connect_timeout = seconds_field(L, "connect_timeout");
    request->timeout = seconds_field(L, "timeout");
    request->idle_timeout = seconds_field(L, "idle_timeout");
    request->ca_file = string_field(L, TABLE, "ca_file", NULL);
    request->ca_directory = string_field(L, TABLE, "ca_directory", NULL);
    request->certificate = string_field(L, TABLE, "certificate", NULL);
    request->key = string_field(L, TABLE, "key", NULL);
    request->key_password = string_field(L, TABLE, "key_password", NULL);
    request->insecure = flag_field(L, TABLE, "insecure");
    request->proxy = string_field(L, TABLE, "proxy", NULL);
    read_headers(L, request);
    read_parts(L, request);
}

void osb_read_websocket_options(lua_State *L, osb_websocket_options *options)
{
    const char *channels;

    options->max_message = (size_t)number_field(L, TABLE, "max_message", 16.0 * 1024 * 1024, 1, OSB_MAX_BYTES);
    options->receive_high_water = (size_t)number_field(L, TABLE, "receive_high_water", 256.0 * 1024, 1, OSB_MAX_BYTES);
    options->send_high_water = (size_t)number_field(L, TABLE, "send_high_water", 256.0 * 1024, 1, OSB_MAX_BYTES);
    options->ping_interval = number_field(L, TABLE, "ping_interval", 40, 0, MAX_SECONDS);
    options->ping_timeout = number_field(L, TABLE, "ping_timeout", 20, 0, MAX_SECONDS);
    options->close_timeout = number_field(L, TABLE, "close_timeout", 5, 0, MAX_SECONDS);
    options->channel_count = 0;
    channels = string_field(L, TABLE, "channels", &options->channel_count);
    if (options->channel_count > sizeof options->channels)
        luaL_error(L, "there are at most %d channels", (int)sizeof options->channels);
    if (channels)
        memcpy(options->channels, channels, options->channel_count);
}
