"""The Serve application: models behind the OpenAI API, and the chat page beside them.

The front holds the commands and the application. Rooms import downwards only:
engines < api, conversations < page < the front. Ray's own module is `from ray import serve`.
"""
