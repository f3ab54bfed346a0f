# SPDX-License-Identifier: MIT
# Target check_headers: every header compiled alone and twice in a row (the include guard):
#   public   strict C17 without _GNU_SOURCE, and strict C++17: what a user may compile with
#   private  gnu17, as the library itself
# It is no part of `all`; the CTest entry check_headers builds it.
enable_language(CXX)

file(GLOB_RECURSE private_headers CONFIGURE_DEPENDS
    ${PROJECT_SOURCE_DIR}/numa/*.h
    ${PROJECT_SOURCE_DIR}/alloc/*.h
    ${PROJECT_SOURCE_DIR}/runtime/*.h)
list(FILTER private_headers EXCLUDE REGEX "/include/numio/")

# Writes one source per header that includes it twice; ret_sources gets their paths.
function(numio_write_includers headers suffix style ret_sources)
    set(written)
    foreach(header IN LISTS headers)
        file(RELATIVE_PATH path ${PROJECT_SOURCE_DIR} ${header})
        string(MAKE_C_IDENTIFIER ${path} id)
        if(style STREQUAL public)
            get_filename_component(name ${header} NAME)
            set(include "<numio/${name}>")
        else()
            set(include "\"${path}\"")
        endif()
        set(source ${CMAKE_CURRENT_BINARY_DIR}/headers/${id}.${suffix})
        file(CONFIGURE OUTPUT ${source} CONTENT
            "#include @include@\n#include @include@\nextern int nio_@id@;\n" @ONLY)
        list(APPEND written ${source})
    endforeach()
    set(${ret_sources} ${written} PARENT_SCOPE)
endfunction()

numio_write_includers("${NUMIO_PUBLIC_HEADERS}" c public public_c)
numio_write_includers("${NUMIO_PUBLIC_HEADERS}" cpp public public_cpp)
numio_write_includers("${private_headers}" c private private_c)

add_custom_target(check_headers)
if(public_c)
    add_library(check_headers_public_c OBJECT EXCLUDE_FROM_ALL ${public_c})
    set_target_properties(check_headers_public_c PROPERTIES C_EXTENSIONS OFF)
    target_compile_options(check_headers_public_c PRIVATE ${NUMIO_C_WARNINGS} -Wpedantic)
    add_library(check_headers_public_cxx OBJECT EXCLUDE_FROM_ALL ${public_cpp})
    set_target_properties(check_headers_public_cxx PROPERTIES
        CXX_STANDARD 17 CXX_STANDARD_REQUIRED ON CXX_EXTENSIONS OFF)
    target_compile_options(check_headers_public_cxx PRIVATE ${NUMIO_CXX_WARNINGS})
    foreach(target IN ITEMS check_headers_public_c check_headers_public_cxx)
        target_include_directories(${target} PRIVATE ${NUMIO_PUBLIC_DIRS})
        add_dependencies(check_headers ${target})
    endforeach()
endif()
if(private_c)
    add_library(check_headers_private OBJECT EXCLUDE_FROM_ALL ${private_c})
    target_include_directories(check_headers_private PRIVATE
        ${PROJECT_SOURCE_DIR} ${NUMIO_PUBLIC_DIRS})
    target_link_libraries(check_headers_private PRIVATE numio_flags ${NUMIO_DEPENDENCIES})
    add_dependencies(check_headers check_headers_private)
endif()

add_test(NAME check_headers
    COMMAND ${CMAKE_COMMAND} --build ${PROJECT_BINARY_DIR} --target check_headers)
set_tests_properties(check_headers PROPERTIES LABELS guard TIMEOUT 300 RUN_SERIAL ON)
