/* Versions that the programs report. */
#ifndef PGR_TOOLS_VERSION_H
#define PGR_TOOLS_VERSION_H

#define PGR_VERSION	   "0.1.0"
#define PGR_COMPAT_VERSION "18.0" /* the PostgreSQL release whose programs we behave as */

#endif
