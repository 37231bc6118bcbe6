"""The search page: `streamlit run search_ui/app.py -- INDEX`, or `videobert ui INDEX`."""
