/*
 * The connection of a transfer to its server. It records what happens while libcurl connects, above all whether a request may have
 * reached the server.
 */
#ifndef OSB_CONNECTION_H
#define OSB_CONNECTION_H

#include "curl_api.h"
#include "outcome.h"

typedef struct osb_connection {
    CURL *easy;
    int is_https;
    int has_tunnel;   /* a proxy is asked for a tunnel, although the URL is a plain one */
    int sent_before;  /* bytes of the request were sent over a connection that has broken since */
    int is_stale;     /* the server has closed the connection that was to be reused */
    int socket_error; /* errno of the last socket that could not be made */
    int connect_port; /* of the last address that was tried */
} osb_connection;

void osb_connection_init(osb_connection *connection, const char *url, int has_tunnel);

/* Watches how `easy` connects. The connection must stay as long as the handle. */
CURLcode osb_connection_watch(osb_connection *connection, CURL *easy);

/* Returns 1 when bytes of the request may have reached the server by now. */
int osb_connection_sent(const osb_connection *connection);

/*
 * Returns 1, once, when the transfer ended because the server had closed the connection that was to be reused. The transfer can be
 * started again, because nothing was sent.
 */
int osb_connection_was_stale(osb_connection *connection);

/* Returns the outcome that a result of libcurl's means for this connection. */
osb_outcome osb_connection_outcome(const osb_connection *connection, CURLcode code);

#endif
