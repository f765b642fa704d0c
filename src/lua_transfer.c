#include "lua_core.h"
#include "output_event.h"

#include <string.h>

/*
 * multi:request { ... } -> transfer. Everything of osb_request under the same names; `headers` is an array of "Name: value",
 * `parts` (with a `boundary`) an array of { name=, filename=, type=, data= | path= | reader=true, size= }. The table is checked, not interpreted:
 * which values make sense is the Lua layer's business.
 */

typedef struct transfer_box {
    osb_transfer *transfer; /* NULL after close or detach */
} transfer_box;

static osb_transfer *check(lua_State *L)
{
    transfer_box *box = luaL_checkudata(L, 1, OSB_TRANSFER_CLASS);
    return box->transfer;
}

/* The request table is at index 2; strings stay alive through `anchors`, a table at index 3. */

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
    lua_rawseti(L, 3, (int)osb_rawlen(L, 3) + 1);
    return text;
}

static double number_field(lua_State *L, int table, const char *name, double otherwise)
{
    double value = otherwise;

    lua_getfield(L, table, name);
    if (lua_isnumber(L, -1))
        value = lua_tonumber(L, -1);
    else if (!lua_isnil(L, -1))
        luaL_error(L, "request field '%s' must be a number", name);
    lua_pop(L, 1);
    return value;
}

static int flag_field(lua_State *L, int table, const char *name)
{
    int value;

    lua_getfield(L, table, name);
    value = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return value;
}

/* Pushes the array field `name`, or nil, and gives its length. */
static size_t array_field(lua_State *L, const char *name)
{
    lua_getfield(L, 2, name);
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
    headers = lua_newuserdata(L, count * sizeof *headers); /* scratch memory that no error can leak */
    for (i = 0; i < count; ++i) {
        lua_rawgeti(L, -2, (int)i + 1);
        headers[i] = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
        if (!headers[i])
            luaL_error(L, "a header must be a string");
        if (strlen(headers[i]) != osb_rawlen(L, -1) || strpbrk(headers[i], "\r\n"))
            luaL_error(L, "a header holds a line end or a NUL byte");
        lua_pop(L, 1); /* the request table holds it */
    }
    lua_rawseti(L, 3, (int)osb_rawlen(L, 3) + 1);
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
    part->size = part->data ? (curl_off_t)length : (curl_off_t)number_field(L, table, "size", -1);
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
    lua_rawseti(L, 3, (int)osb_rawlen(L, 3) + 1);
    lua_pop(L, 1);
    request->parts = parts;
    request->part_count = count;
    request->boundary = string_field(L, 2, "boundary", NULL);
    if (!request->boundary)
        luaL_error(L, "parts need a boundary");
}

static void read_request(lua_State *L, osb_request *request)
{
    memset(request, 0, sizeof *request);
    request->method = string_field(L, 2, "method", NULL);
    request->url = string_field(L, 2, "url", NULL);
    if (!request->method || !request->url)
        luaL_error(L, "a request needs a method and a url");
    request->body = string_field(L, 2, "body", &request->body_length);
    request->may_repeat = flag_field(L, 2, "may_repeat");
    request->framed = flag_field(L, 2, "framed");
    request->frame_limit = (size_t)number_field(L, 2, "frame_limit", 64.0 * 1024 * 1024);
    request->sink = string_field(L, 2, "sink", NULL);
    request->sink_mode = (int)number_field(L, 2, "sink_mode", -1);
    request->high_water = (size_t)number_field(L, 2, "high_water", 256.0 * 1024);
    request->receive_buffer = (long)number_field(L, 2, "receive_buffer", 64.0 * 1024);
    request->connect_timeout = number_field(L, 2, "connect_timeout", 0);
    request->timeout = number_field(L, 2, "timeout", 0);
    request->idle_timeout = number_field(L, 2, "idle_timeout", 0);
    request->ca_file = string_field(L, 2, "ca_file", NULL);
    request->ca_directory = string_field(L, 2, "ca_directory", NULL);
    request->certificate = string_field(L, 2, "certificate", NULL);
    request->key = string_field(L, 2, "key", NULL);
    request->key_password = string_field(L, 2, "key_password", NULL);
    request->insecure = flag_field(L, 2, "insecure");
    request->proxy = string_field(L, 2, "proxy", NULL);
    read_headers(L, request);
    read_parts(L, request);
}

int osb_lua_request(lua_State *L)
{
    osb_multi *multi = osb_check_multi(L, 1);
    osb_request request;
    transfer_box *box;

    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    lua_newtable(L);
    read_request(L, &request);
    box = lua_newuserdata(L, sizeof *box);
    box->transfer = NULL;
    osb_set_class(L, OSB_TRANSFER_CLASS);
    lua_pushvalue(L, 3);
    osb_anchor(L, -2);
    if (!multi)
        return 1; /* a transfer that was closed from the start: the caller learns it as any other outcome */
    box->transfer = osb_transfer_start(multi, &request);
    if (!box->transfer)
        return luaL_error(L, "not enough memory");
    return 1;
}

/* transfer:id() -> its number among the transfers of its multi: what multi:changed() gives */
static int id(lua_State *L)
{
    osb_transfer *transfer = check(L);

    if (transfer)
        lua_pushinteger(L, (lua_Integer)transfer->id);
    else
        lua_pushnil(L);
    return 1;
}

/* transfer:sent() -> whether bytes of the request may have reached the server by now */
static int sent(lua_State *L)
{
    osb_transfer *transfer = check(L);

    lua_pushboolean(L, transfer && osb_transfer_sent(transfer));
    return 1;
}

/* transfer:head() -> status, header lines; nil until they are complete */
static int head(lua_State *L)
{
    osb_transfer *transfer = check(L);

    if (!transfer || !transfer->head_complete) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushinteger(L, (lua_Integer)transfer->status);
    lua_pushlstring(L, osb_buffer_bytes(&transfer->head), osb_buffer_size(&transfer->head));
    return 2;
}

/* transfer:read(most) -> the next bytes of the body, at most `most`; nil when none are queued */
static int read_bytes(lua_State *L)
{
    osb_transfer *transfer = check(L);
    lua_Number most = luaL_optnumber(L, 2, 64.0 * 1024);
    size_t size = transfer ? osb_buffer_size(&transfer->response.input) : 0;

    if (size == 0 || !(most >= 1)) {
        lua_pushnil(L);
        return 1;
    }
    if (most < (lua_Number)size)
        size = (size_t)most;
    lua_pushlstring(L, osb_buffer_bytes(&transfer->response.input), size);
    osb_buffer_consume(&transfer->response.input, size);
    transfer->response.scanned = 0; /* what the decoder knew of the queue's beginning is gone */
    return 1;
}

/* transfer:queued() -> bytes of the body that wait to be read */
static int queued(lua_State *L)
{
    osb_transfer *transfer = check(L);
    lua_pushinteger(L, transfer ? (lua_Integer)osb_buffer_size(&transfer->response.input) : 0);
    return 1;
}

/* transfer:frame() -> the next frame of an event stream: data, event, id; nil when none is complete; nil, "too_large" */
static int frame(lua_State *L)
{
    osb_transfer *transfer = check(L);
    osb_frame_status status = OSB_FRAME_NONE;
    osb_frame next;

    if (transfer)
        status = osb_frames_next(&transfer->response, &next);
    return osb_push_frame(L, &next, status);
}

/* transfer:event() -> "stdout" or "stderr" and the text, where the next frame is a plain line of output; else nil and transfer:frame() */
static int event(lua_State *L)
{
    osb_transfer *transfer = check(L);
    osb_frame_status status = OSB_FRAME_NONE;
    osb_frame next;

    if (transfer)
        status = osb_frames_next(&transfer->response, &next);
    if (status == OSB_FRAME_READY) {
        const char *text;
        size_t length;
        osb_output output = osb_output_event(next.data, next.length, &text, &length);
        if (output) {
            lua_pushstring(L, output == OSB_OUTPUT_STDOUT ? "stdout" : "stderr");
            lua_pushlstring(L, text, length);
            return 2;
        }
    }
    lua_pushnil(L);
    return 1 + osb_push_frame(L, &next, status);
}

/* transfer:outcome() -> nil while it runs; then its name, a message, whether the request was sent, whether over a reused connection */
static int outcome(lua_State *L)
{
    osb_transfer *transfer = check(L);

    if (!transfer) {
        lua_pushliteral(L, "closed");
        lua_pushliteral(L, "it was closed");
        return 2;
    }
    if (transfer->outcome == OSB_RUNNING) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushstring(L, osb_outcome_name(transfer->outcome));
    lua_pushstring(L, transfer->message);
    lua_pushboolean(L, transfer->request_sent);
    lua_pushboolean(L, transfer->reused);
    return 4;
}

/* transfer:progress() -> bytes of the body received, bytes of content sent */
static int progress(lua_State *L)
{
    osb_transfer *transfer = check(L);

    lua_pushinteger(L, transfer ? (lua_Integer)transfer->received : 0);
    lua_pushinteger(L, transfer ? (lua_Integer)transfer->body.sent : 0);
    return 2;
}

/* transfer:wants() -> the index of the reader part that can take bytes, or nil */
static int wants(lua_State *L)
{
    osb_transfer *transfer = check(L);
    size_t part = transfer ? osb_body_wants(&transfer->body) : 0;

    if (part == 0)
        lua_pushnil(L);
    else
        lua_pushinteger(L, (lua_Integer)part);
    return 1;
}

/* transfer:write(part, bytes | nil): nil ends the part. Returns true, or nil when it is not that part's turn. */
static int write_bytes(lua_State *L)
{
    osb_transfer *transfer = check(L);
    lua_Integer part = luaL_checkinteger(L, 2);
    size_t length = 0;
    const char *bytes = luaL_optlstring(L, 3, NULL, &length);
    int failed;

    if (!transfer || part < 1) {
        lua_pushnil(L);
        return 1;
    }
    failed = osb_body_write(&transfer->body, (size_t)part, bytes, length);
    if (failed == -1)
        return luaL_error(L, "not enough memory");
    if (failed)
        lua_pushnil(L);
    else
        lua_pushboolean(L, 1);
    return 1;
}

static int close_transfer(lua_State *L)
{
    transfer_box *box = luaL_checkudata(L, 1, OSB_TRANSFER_CLASS);
    osb_transfer *transfer = box->transfer;

    box->transfer = NULL;
    osb_transfer_free(transfer);
    return 0;
}

/* transfer:detach(seconds, must_arrive): leaves it to the multi, which discards the rest of the response */
static int detach(lua_State *L)
{
    transfer_box *box = luaL_checkudata(L, 1, OSB_TRANSFER_CLASS);
    lua_Number seconds = luaL_checknumber(L, 2);
    osb_transfer *transfer = box->transfer;

    box->transfer = NULL;
    if (transfer)
        osb_transfer_detach(transfer, seconds, lua_toboolean(L, 3));
    return 0;
}

void osb_open_transfer(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "id", id }, { "sent", sent }, { "head", head }, { "read", read_bytes }, { "queued", queued }, { "frame", frame }, { "event", event },
        { "outcome", outcome },
        { "progress", progress }, { "wants", wants }, { "write", write_bytes }, { "detach", detach },
        { "close", close_transfer }, { NULL, NULL }
    };
    static const luaL_Reg meta[] = { { "__gc", close_transfer }, { "__close", close_transfer }, { NULL, NULL } };

    osb_new_class(L, OSB_TRANSFER_CLASS, methods, meta);
    lua_pop(L, 1);
}
