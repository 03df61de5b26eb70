// The page at /: runtime/server/page.html, as the build put it into the program.
#ifndef ADALLM_SERVER_PAGE_H
#define ADALLM_SERVER_PAGE_H
extern const unsigned char server_page[];
extern const unsigned long server_page_bytes;
#endif
