/* A request as the caller describes it, and the libcurl handle that is set up for it. */
#ifndef OSB_REQUEST_H
#define OSB_REQUEST_H

#include "body.h"
#include "curl_api.h"
#include "websocket_connection.h"

typedef struct osb_request {
    const char *method;
    const char *url;
    const char *const *headers; /* "Name: value"; the value may be empty */
    size_t header_count;
    const char *body; /* NULL: none */
    size_t body_length;
    const osb_part *parts; /* multipart/form-data instead of `body` */
    const char *boundary;  /* between the parts: letters, digits and dashes that appear in none of them */
    size_t part_count;
    int may_repeat;      /* it does no harm when the server receives this request twice */
    size_t max_event;    /* the longest event in bytes where the response is read by events, else 0 */
    const char *sink;    /* a file to be created for the body of a good response, instead of the queue; NULL: none */
    int sink_mode;       /* its permission bits; -1: as usual */
    size_t high_water;   /* bytes queued at which the transfer pauses, at least 1 */
    long receive_buffer; /* libcurl's, in bytes */
    double connect_timeout; /* seconds to resolve, connect and shake hands; 0: no limit, as for the next two */
    double timeout;         /* seconds for everything */
    double idle_timeout;    /* seconds without a byte in either direction, not counting pauses for a slow reader */
    const char *ca_file;      /* this and the next NULL: as the environment says (CURL_CA_BUNDLE, SSL_CERT_FILE, SSL_CERT_DIR) */
    const char *ca_directory;
    const char *certificate;
    const char *key;
    const char *key_password;
    int insecure;      /* the peer is not verified */
    const char *proxy; /* NULL: as the environment says; "": none */
    const osb_websocket_options *websocket; /* NULL: an ordinary request. Else a GET without a body, which switches to WebSocket */
} osb_request;

/*
 * Makes the body of a request. Returns CURLE_OK, CURLE_OUT_OF_MEMORY, or CURLE_READ_ERROR (the body's `problem` says why).
 */
CURLcode osb_request_body(const osb_request *request, osb_body *body);

/*
 * Sets up `easy` for a request with that body, but for the callbacks. `websocket_key`: of a request that switches to WebSocket.
 * `headers` receives the list of its headers, which must stay as long as the handle.
 *
 * Closing a transfer while its host name is looked up takes until the lookup has ended where libcurl is older than 7.87, because such
 * a libcurl waits for the thread that looks it up; and so does a step in which a clock of the transfer runs out.
 */
CURLcode osb_request_set_up(const osb_request *request, CURL *easy, const osb_body *body, const char *websocket_key,
                            struct curl_slist **headers);

#endif
