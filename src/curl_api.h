/* libcurl, with messages that say what to install when it is missing or too old. */
#ifndef OSB_CURL_API_H
#define OSB_CURL_API_H

#if defined(__has_include)
#if !__has_include(<curl/curl.h>)
#error "libcurl's headers are missing. Install libcurl4-openssl-dev (Debian, Ubuntu), libcurl-devel (Fedora), curl-dev (Alpine) or curl (Homebrew)."
#endif
#endif

#include <curl/curl.h>

#if LIBCURL_VERSION_NUM < 0x074400
#error "opensandbox needs libcurl 7.68 or newer."
#endif

#endif
